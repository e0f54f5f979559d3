// SPDX-License-Identifier: Apache-2.0 OR MIT
// NettyService PORT BACKEND: Netty on two event loops, server and client; waiting is the loops' timers.
// A call is made on the loop of its request, over a connection of that loop's pool.

import io.netty.bootstrap.Bootstrap;
import io.netty.bootstrap.ServerBootstrap;
import io.netty.buffer.Unpooled;
import io.netty.channel.Channel;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.ChannelOption;
import io.netty.channel.EventLoop;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.channel.nio.NioEventLoopGroup;
import io.netty.channel.socket.nio.NioServerSocketChannel;
import io.netty.channel.socket.nio.NioSocketChannel;
import io.netty.handler.codec.http.DefaultFullHttpRequest;
import io.netty.handler.codec.http.DefaultFullHttpResponse;
import io.netty.handler.codec.http.FullHttpRequest;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpClientCodec;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpObjectAggregator;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpServerCodec;
import io.netty.handler.codec.http.HttpVersion;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.BiConsumer;
import java.util.function.Consumer;

public class NettyService {
    static final NioEventLoopGroup LOOPS = new NioEventLoopGroup(2);
    /** Idle connections; each queue is used by its own loop only. */
    static final Map<EventLoop, Queue<Channel>> IDLE = new ConcurrentHashMap<>();
    static InetSocketAddress backend;

    public static void main(String[] arguments) throws Exception {
        backend = new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[1]));
        new ServerBootstrap().group(LOOPS).channel(NioServerSocketChannel.class).option(ChannelOption.SO_BACKLOG, 256)
            .childHandler(initializer(channel -> channel.pipeline().addLast(
                new HttpServerCodec(), new HttpObjectAggregator(65536), new Service())))
            .bind("127.0.0.1", Integer.parseInt(arguments[0])).sync().channel().closeFuture().sync();
    }

    static class Service extends SimpleChannelInboundHandler<FullHttpRequest> {
        @Override
        protected void channelRead0(ChannelHandlerContext context, FullHttpRequest request) {
            String[] path = request.uri().split("/");
            String shape = path[2], id = path[3];
            EventLoop loop = context.channel().eventLoop();
            Consumer<String> answer = body -> pause(loop, shape, () -> {
                var response = new DefaultFullHttpResponse(HttpVersion.HTTP_1_1, HttpResponseStatus.OK,
                    Unpooled.copiedBuffer(body, StandardCharsets.UTF_8));
                response.headers().set("Content-Length", response.content().readableBytes());
                context.writeAndFlush(response);
            });
            pause(loop, shape, () -> {
                switch (shape) {
                    case "one" -> get(loop, shape, id, 0, answer);
                    case "parallel" -> {
                        String[] parts = new String[2];
                        BiConsumer<Integer, String> taken = (n, body) -> {
                            parts[n] = body;
                            if (parts[0] != null && parts[1] != null) answer.accept(parts[0] + " " + parts[1]);
                        };
                        get(loop, shape, id, 0, body -> taken.accept(0, body));
                        get(loop, shape, id, 1, body -> taken.accept(1, body));
                    }
                    default -> get(loop, shape, id, 0, first -> pause(loop, shape,
                        () -> get(loop, shape, id, 1, second -> answer.accept(first + " " + second))));
                }
            });
        }
    }

    static void get(EventLoop loop, String shape, String id, int n, Consumer<String> then) {
        Channel idle = shape.equals("fresh") ? null : idle(loop).poll();
        Consumer<Channel> ask = channel -> {
            channel.pipeline().addLast("answer", new SimpleChannelInboundHandler<FullHttpResponse>() {
                @Override
                protected void channelRead0(ChannelHandlerContext context, FullHttpResponse response) {
                    context.pipeline().remove("answer");
                    if (shape.equals("fresh")) context.close(); else idle(loop).add(context.channel());
                    then.accept(response.content().toString(StandardCharsets.UTF_8));
                }
            });
            var request = new DefaultFullHttpRequest(
                HttpVersion.HTTP_1_1, HttpMethod.GET, "/call/" + shape + "/" + id + "/" + n);
            request.headers().set("Host", "127.0.0.1");
            channel.writeAndFlush(request);
        };
        if (idle != null) {
            ask.accept(idle);
            return;
        }
        new Bootstrap().group(loop).channel(NioSocketChannel.class)
            .handler(initializer(channel -> channel.pipeline().addLast(
                new HttpClientCodec(), new HttpObjectAggregator(65536))))
            .connect(backend).addListener(connected -> {
                if (connected.isSuccess()) ask.accept(((io.netty.channel.ChannelFuture) connected).channel());
                else then.accept(connected.cause().toString());
            });
    }

    static Queue<Channel> idle(EventLoop loop) {
        return IDLE.computeIfAbsent(loop, none -> new ArrayDeque<>());
    }

    static void pause(EventLoop loop, String shape, Runnable then) {
        long duration = shape.equals("one") ? 3 : ThreadLocalRandom.current().nextLong(1, 6);
        loop.schedule(then, duration, TimeUnit.MILLISECONDS);
    }

    static ChannelInitializer<Channel> initializer(Consumer<Channel> fill) {
        return new ChannelInitializer<>() {
            @Override
            protected void initChannel(Channel channel) {
                fill.accept(channel);
            }
        };
    }
}
