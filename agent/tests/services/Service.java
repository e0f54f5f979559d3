// SPDX-License-Identifier: Apache-2.0 OR MIT

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.HttpURLConnection;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.concurrent.Executors;

/**
 * Service.java PORT BACKEND CLIENT: answers /a/&lt;id&gt; with what it gets for /b/&lt;id&gt;; a pool of threads.
 * CLIENT is "client" for HttpClient (its own selector thread reads and writes) or "url" for HttpURLConnection (the
 * calling thread does).
 */
public class Service {
    /** As many as the most connections of a test: a request never waits for a thread. */
    private static final int THREADS = 16;

    private record Answer(int status, byte[] body) {}

    private interface Caller {
        Answer call(String method, URI uri, byte[] posted) throws IOException, InterruptedException;
    }

    public static void main(String[] arguments) throws IOException {
        int port = Integer.parseInt(arguments[0]);
        String backend = "http://127.0.0.1:" + arguments[1] + "/b/";
        Caller caller = arguments[2].equals("url") ? Service::callWithUrl : callerWithClient();
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 128);
        server.createContext("/a/", exchange -> answer(exchange, caller, backend));
        server.setExecutor(Executors.newFixedThreadPool(THREADS));
        server.start();
    }

    private static void answer(HttpExchange exchange, Caller caller, String backend) throws IOException {
        String id = exchange.getRequestURI().getPath().substring("/a/".length());
        byte[] posted = exchange.getRequestBody().readAllBytes();
        Answer answer;
        try {
            answer = caller.call(exchange.getRequestMethod(), URI.create(backend + id), posted);
        } catch (IOException | InterruptedException error) {
            answer = new Answer(502, error.toString().getBytes());
        }
        exchange.sendResponseHeaders(answer.status(), answer.body().length);
        exchange.getResponseBody().write(answer.body());
        exchange.close();
    }

    private static Caller callerWithClient() {
        HttpClient client = HttpClient.newHttpClient();
        return (method, uri, posted) -> {
            var body = posted.length == 0 ? BodyPublishers.noBody() : BodyPublishers.ofByteArray(posted);
            var response = client.send(HttpRequest.newBuilder(uri).method(method, body).build(), BodyHandlers.ofByteArray());
            return new Answer(response.statusCode(), response.body());
        };
    }

    private static Answer callWithUrl(String method, URI uri, byte[] posted) throws IOException {
        var connection = (HttpURLConnection) uri.toURL().openConnection();
        connection.setRequestMethod(method);
        if (posted.length > 0) {
            connection.setDoOutput(true);
            connection.setFixedLengthStreamingMode(posted.length);
            connection.getOutputStream().write(posted);
        }
        int status = connection.getResponseCode();
        try (var in = status < 400 ? connection.getInputStream() : connection.getErrorStream()) {
            return new Answer(status, in.readAllBytes());
        }
    }
}
