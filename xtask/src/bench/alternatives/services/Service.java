// SPDX-License-Identifier: Apache-2.0 OR MIT

import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.concurrent.Executors;

/** Service.java PORT BACKEND: answers every request with what it gets from the backend; a pool of threads. */
public class Service {
    /** As many as the load has connections. */
    private static final int THREADS = 16;

    public static void main(String[] arguments) throws IOException {
        URI backend = URI.create("http://127.0.0.1:" + arguments[1] + "/stock");
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])), 128);
        server.createContext("/", exchange -> {
            int status = 200;
            try {
                client.send(HttpRequest.newBuilder(backend).build(), BodyHandlers.ofString());
            } catch (InterruptedException error) {
                status = 502;
            }
            byte[] body = "ok\n".getBytes();
            exchange.sendResponseHeaders(status, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.setExecutor(Executors.newFixedThreadPool(THREADS));
        server.start();
    }
}
