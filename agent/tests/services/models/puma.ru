# SPDX-License-Identifier: Apache-2.0 OR MIT
# puma puma.ru with BACKEND in the environment: a pool of threads, Net::HTTP for the calls, a connection per thread.
require 'net/http'

BACKEND = Integer(ENV.fetch('BACKEND'))

def connection
  Thread.current[:backend] ||= Net::HTTP.start('127.0.0.1', BACKEND, keep_alive_timeout: 60)
end

def get(shape, id, n)
  path = "/call/#{shape}/#{id}/#{n}"
  return Net::HTTP.get(URI("http://127.0.0.1:#{BACKEND}#{path}")) if shape == 'fresh'

  connection.get(path).body
end

def pause(shape)
  sleep(shape == 'one' ? 0.003 : rand(0.001..0.005))
end

run(lambda do |environment|
  _, _, shape, id = environment['PATH_INFO'].split('/')
  pause(shape)
  parts =
    if shape == 'parallel'
      [0, 1].map { |n| Thread.new { get(shape, id, n) } }.map(&:value)
    else
      first = get(shape, id, 0)
      pause(shape) unless shape == 'one'
      shape == 'one' ? [first] : [first, get(shape, id, 1)]
    end
  pause(shape)
  [200, {}, [parts.join(' ')]]
end)
