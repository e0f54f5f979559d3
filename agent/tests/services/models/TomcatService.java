// SPDX-License-Identifier: Apache-2.0 OR MIT
// TomcatService PORT BACKEND FOLDER: a servlet on Tomcat's 16 threads, HttpClient.send for the calls.

import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ThreadLocalRandom;
import org.apache.catalina.connector.Connector;
import org.apache.catalina.startup.Tomcat;

public class TomcatService {
    static final HttpClient CLIENT = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    static String backend;

    public static void main(String[] arguments) throws Exception {
        backend = "http://127.0.0.1:" + arguments[1];
        Tomcat tomcat = new Tomcat();
        tomcat.setBaseDir(arguments[2]);
        Connector connector = new Connector();
        connector.setProperty("address", "127.0.0.1");
        connector.setPort(Integer.parseInt(arguments[0]));
        connector.setProperty("maxThreads", "16");
        connector.setProperty("maxKeepAliveRequests", "-1");
        tomcat.setConnector(connector);
        var context = tomcat.addContext("", arguments[2]);
        Tomcat.addServlet(context, "work", new HttpServlet() {
            @Override
            protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
                String[] path = request.getRequestURI().split("/");
                byte[] body;
                try {
                    body = work(path[2], path[3]).getBytes(StandardCharsets.UTF_8);
                } catch (Exception e) {
                    body = e.toString().getBytes(StandardCharsets.UTF_8);
                }
                response.setContentLength(body.length);
                response.getOutputStream().write(body);
            }
        });
        context.addServletMappingDecoded("/work/*", "work");
        tomcat.start();
        tomcat.getServer().await();
    }

    static String work(String shape, String id) throws Exception {
        pause(shape);
        String body;
        if (shape.equals("parallel")) {
            CompletableFuture<String> first = start(shape, id, 0), second = start(shape, id, 1);
            body = first.get() + " " + second.get();
        } else {
            body = get(shape, id, 0);
            if (!shape.equals("one")) {
                pause(shape);
                body += " " + get(shape, id, 1);
            }
        }
        pause(shape);
        return body;
    }

    static String get(String shape, String id, int n) throws Exception {
        return CLIENT.send(request(shape, id, n), HttpResponse.BodyHandlers.ofString()).body();
    }

    static CompletableFuture<String> start(String shape, String id, int n) {
        return CLIENT.sendAsync(request(shape, id, n), HttpResponse.BodyHandlers.ofString()).thenApply(HttpResponse::body);
    }

    static HttpRequest request(String shape, String id, int n) {
        return HttpRequest.newBuilder(URI.create(backend + "/call/" + shape + "/" + id + "/" + n)).build();
    }

    static void pause(String shape) throws InterruptedException {
        Thread.sleep(shape.equals("one") ? 3 : ThreadLocalRandom.current().nextLong(1, 6));
    }
}
