# SPDX-License-Identifier: Apache-2.0 OR MIT
# ruby fibers.rb PORT BACKEND STYLE: a fiber for each connection, on one thread. Calls by async-http's client (async), or by Net::HTTP, whose
# waiting Ruby leaves to the scheduler of fibers (net-http).
require 'async'
require 'async/http/client'
require 'async/http/endpoint'
require 'async/http/server'
require 'net/http'

PORT, BACKEND = ARGV.first(2).map { |port| Integer(port) }
STYLE = ARGV.fetch(2)

# Calls by async-http: a client keeps connections for later calls.
class AsyncCalls
  def initialize
    @endpoint = Async::HTTP::Endpoint.parse("http://127.0.0.1:#{BACKEND}")
    @client = Async::HTTP::Client.new(@endpoint, retries: 0)
  end

  def pooled(path)
    @client.get(path).read
  end

  def fresh(path)
    client = Async::HTTP::Client.new(@endpoint, retries: 0)
    client.get(path).read
  ensure
    client&.close
  end
end

# Calls by Net::HTTP: its connections are kept here.
class NetCalls
  def initialize
    @idle = []
  end

  def pooled(path)
    connection = @idle.pop || Net::HTTP.start('127.0.0.1', BACKEND, keep_alive_timeout: 60)
    body = connection.get(path).body
    @idle.push(connection)
    body
  end

  def fresh(path)
    Net::HTTP.get(URI("http://127.0.0.1:#{BACKEND}#{path}"))
  end
end

def pause(shape)
  sleep(shape == 'one' ? 0.003 : rand(0.001..0.005))
end

def answer(calls, shape, id)
  get = lambda do |n|
    path = "/call/#{shape}/#{id}/#{n}"
    shape == 'fresh' ? calls.fresh(path) : calls.pooled(path)
  end
  pause(shape)
  parts =
    if shape == 'parallel'
      [0, 1].map { |n| Async::Task.current.async { get.call(n) } }.map(&:wait)
    else
      first = get.call(0)
      pause(shape) unless shape == 'one'
      shape == 'one' ? [first] : [first, get.call(1)]
    end
  pause(shape)
  parts.join(' ')
end

Async do
  calls = STYLE == 'async' ? AsyncCalls.new : NetCalls.new
  endpoint = Async::HTTP::Endpoint.parse("http://127.0.0.1:#{PORT}", reuse_port: true)
  server = Async::HTTP::Server.for(endpoint) do |request|
    _, _, shape, id = request.path.split('/')
    Protocol::HTTP::Response[200, {}, [answer(calls, shape, id)]]
  end
  server.run
end
