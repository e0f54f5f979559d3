// SPDX-License-Identifier: Apache-2.0 OR MIT

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executors;

/**
 * Service.java serve PORT: answers as ../programs.rs says, with HttpServer and its own chunking.
 * Service.java call PORT PATH...: asks with HttpClient, on one connection.
 * Service.java pool PORT PATH...: asks with the same four at a time, on connections that are kept.
 */
public class Service {
    private static final byte[] PIECE = "0123456789".getBytes();

    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(arguments[1]);
        if (arguments[0].equals("serve")) {
            HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 128);
            server.createContext("/", Service::answer);
            server.setExecutor(Executors.newFixedThreadPool(4));
            server.start();
            return;
        }
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        int width = arguments[0].equals("pool") ? 4 : 1;
        for (int from = 2; width > 1 && from < arguments.length; from += width) {
            int to = Math.min(from + width, arguments.length);
            CompletableFuture<?>[] calls = new CompletableFuture<?>[to - from];
            for (int index = from; index < to; index += 1) {
                URI uri = URI.create("http://127.0.0.1:" + port + arguments[index]);
                calls[index - from] = client.sendAsync(HttpRequest.newBuilder(uri).build(), BodyHandlers.ofByteArray());
            }
            CompletableFuture.allOf(calls).join();
        }
        for (int index = 2; width == 1 && index < arguments.length; index += 1) {
            URI uri = URI.create("http://127.0.0.1:" + port + arguments[index]);
            client.send(HttpRequest.newBuilder(uri).build(), BodyHandlers.ofByteArray());
        }
    }

    private static void answer(HttpExchange exchange) throws IOException {
        exchange.getRequestBody().readAllBytes();
        String kind = exchange.getRequestURI().getPath().split("/")[1];
        switch (kind) {
            case "204" -> exchange.sendResponseHeaders(204, -1);
            case "writes" -> slowly(exchange, 5 * PIECE.length);
            // A length of 0 asks for chunks.
            case "chunks" -> slowly(exchange, 0);
            case "big" -> {
                exchange.sendResponseHeaders(200, 0);
                exchange.getResponseBody().write(new byte[1 << 20]);
            }
            default -> {
                boolean head = exchange.getRequestMethod().equals("HEAD");
                exchange.sendResponseHeaders(Integer.parseInt(kind), head ? -1 : PIECE.length);
                if (!head) {
                    exchange.getResponseBody().write(PIECE);
                }
            }
        }
        exchange.close();
    }

    private static void slowly(HttpExchange exchange, int length) throws IOException {
        exchange.sendResponseHeaders(200, length);
        try {
            for (int part = 0; part < 5; part += 1) {
                Thread.sleep(100);
                exchange.getResponseBody().write(PIECE);
                exchange.getResponseBody().flush();
            }
        } catch (InterruptedException interrupted) {
            throw new IOException(interrupted);
        }
    }
}
