// SPDX-License-Identifier: Apache-2.0 OR MIT
// TomcatService PORT BACKEND STYLE FOLDER: a servlet on Tomcat's threads.
// pool: 16 of them, HttpClient.send for the calls. virtual: a virtual thread for each request (JDK 21), on which
// HttpURLConnection makes the calls.

import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.net.URI;
import java.net.URLConnection;
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
    static boolean isVirtual;

    public static void main(String[] arguments) throws Exception {
        backend = "http://127.0.0.1:" + arguments[1];
        isVirtual = arguments[2].equals("virtual");
        Tomcat tomcat = new Tomcat();
        tomcat.setBaseDir(arguments[3]);
        Connector connector = new Connector();
        connector.setProperty("address", "127.0.0.1");
        connector.setPort(Integer.parseInt(arguments[0]));
        connector.setProperty("maxThreads", "16");
        connector.setProperty("useVirtualThreads", Boolean.toString(isVirtual));
        connector.setProperty("maxKeepAliveRequests", "-1");
        tomcat.setConnector(connector);
        var context = tomcat.addContext("", arguments[3]);
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
        if (isVirtual) {
            URLConnection call = uri(shape, id, n).toURL().openConnection();
            if (shape.equals("fresh")) call.setRequestProperty("Connection", "close");
            try (var body = call.getInputStream()) {
                return new String(body.readAllBytes(), StandardCharsets.UTF_8);
            }
        }
        return CLIENT.send(request(shape, id, n), HttpResponse.BodyHandlers.ofString()).body();
    }

    static CompletableFuture<String> start(String shape, String id, int n) {
        return CLIENT.sendAsync(request(shape, id, n), HttpResponse.BodyHandlers.ofString()).thenApply(HttpResponse::body);
    }

    static HttpRequest request(String shape, String id, int n) {
        return HttpRequest.newBuilder(uri(shape, id, n)).build();
    }

    static URI uri(String shape, String id, int n) {
        return URI.create(backend + "/call/" + shape + "/" + id + "/" + n);
    }

    static void pause(String shape) throws InterruptedException {
        Thread.sleep(shape.equals("one") ? 3 : ThreadLocalRandom.current().nextLong(1, 6));
    }
}
