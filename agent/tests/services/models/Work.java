// SPDX-License-Identifier: Apache-2.0 OR MIT
// Work PORT BACKEND STYLE: the JDK's HttpServer on 16 threads, each call as STYLE has it.
// pool: HttpClient.send on the request's thread (parallel: sendAsync, joined there). second-pool: HttpURLConnection on
// the threads of another pool, while the request's thread waits. futures: nobody waits; CompletableFuture chains over
// sendAsync and delayed executors end with the answer. virtual: pool, with a virtual thread for each request (JDK 21).
// virtual-url: HttpURLConnection on the request's virtual thread (parallel: on others that it starts and waits for).

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.HttpURLConnection;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;

public class Work {
    static final HttpClient CLIENT = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    static final ExecutorService SECOND = Executors.newFixedThreadPool(16);
    static String backend;

    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(arguments[0]);
        backend = "http://127.0.0.1:" + arguments[1];
        String style = arguments[2];
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 256);
        server.createContext("/work/", exchange -> {
            String[] path = exchange.getRequestURI().getPath().split("/");
            String shape = path[2], id = path[3];
            try {
                if (style.equals("futures")) {
                    byFutures(shape, id).thenAccept(parts -> answer(exchange, parts));
                } else {
                    answer(exchange, byBlocking(style, shape, id));
                }
            } catch (Exception e) {
                answer(exchange, List.of(e.toString()));
            }
        });
        server.setExecutor(style.startsWith("virtual") ? virtualThreads() : Executors.newFixedThreadPool(16));
        server.start();
    }

    static List<String> byBlocking(String style, String shape, String id) throws Exception {
        Thread.sleep(duration(shape));
        List<String> parts;
        if (shape.equals("parallel")) {
            Future<String> first = submit(style, shape, id, 0), second = submit(style, shape, id, 1);
            parts = List.of(first.get(), second.get());
        } else {
            String first = get(style, shape, id, 0);
            parts = List.of(first);
            if (!shape.equals("one")) {
                Thread.sleep(duration(shape));
                parts = List.of(first, get(style, shape, id, 1));
            }
        }
        Thread.sleep(duration(shape));
        return parts;
    }

    static CompletableFuture<List<String>> byFutures(String shape, String id) {
        CompletableFuture<List<String>> parts = later(shape).thenCompose(none -> {
            CompletableFuture<String> first = start("futures", shape, id, 0);
            return switch (shape) {
                case "one" -> first.thenApply(List::of);
                case "parallel" -> first.thenCombine(start("futures", shape, id, 1), List::of);
                default -> first.thenCompose(a -> later(shape).thenCompose(
                    none2 -> start("futures", shape, id, 1).thenApply(b -> List.of(a, b))));
            };
        });
        return parts.thenCompose(all -> later(shape).thenApply(none -> all));
    }

    static String get(String style, String shape, String id, int n) throws Exception {
        if (style.equals("second-pool")) return start(style, shape, id, n).get();
        if (style.equals("virtual-url")) return byUrl(shape, id, n);
        return CLIENT.send(request(shape, id, n), HttpResponse.BodyHandlers.ofString()).body();
    }

    static Future<String> submit(String style, String shape, String id, int n) throws Exception {
        if (style.equals("virtual-url")) return virtualThreads().submit(() -> byUrl(shape, id, n));
        return start(style, shape, id, n);
    }

    static CompletableFuture<String> start(String style, String shape, String id, int n) {
        if (style.equals("second-pool")) return CompletableFuture.supplyAsync(() -> byUrl(shape, id, n), SECOND);
        return CLIENT.sendAsync(request(shape, id, n), HttpResponse.BodyHandlers.ofString()).thenApply(HttpResponse::body);
    }

    static HttpRequest request(String shape, String id, int n) {
        HttpRequest.Builder request = HttpRequest.newBuilder(uri(shape, id, n));
        // The JDK allows this header under -Djdk.httpclient.allowRestrictedHeaders=connection.
        return (shape.equals("fresh") ? request.header("Connection", "close") : request).build();
    }

    static String byUrl(String shape, String id, int n) {
        try {
            HttpURLConnection call = (HttpURLConnection) uri(shape, id, n).toURL().openConnection();
            if (shape.equals("fresh")) call.setRequestProperty("Connection", "close");
            try (var body = call.getInputStream()) {
                return new String(body.readAllBytes(), StandardCharsets.UTF_8);
            }
        } catch (IOException e) {
            return e.toString();
        }
    }

    static URI uri(String shape, String id, int n) {
        return URI.create(backend + "/call/" + shape + "/" + id + "/" + n);
    }

    static long duration(String shape) {
        return shape.equals("one") ? 3 : ThreadLocalRandom.current().nextLong(1, 6);
    }

    static CompletableFuture<Void> later(String shape) {
        return CompletableFuture.runAsync(
            () -> {}, CompletableFuture.delayedExecutor(duration(shape), TimeUnit.MILLISECONDS));
    }

    /** By reflection: the same source runs on a JDK that has none of them. */
    static ExecutorService virtualThreads() throws ReflectiveOperationException {
        return (ExecutorService) Executors.class.getMethod("newVirtualThreadPerTaskExecutor").invoke(null);
    }

    static void answer(HttpExchange exchange, List<String> parts) {
        byte[] body = String.join(" ", parts).getBytes(StandardCharsets.UTF_8);
        try (exchange) {
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
        } catch (IOException e) {
            e.printStackTrace();
        }
    }
}
