// SPDX-License-Identifier: Apache-2.0 OR MIT
// service.js PORT BACKEND: answers /a/<id> with what http.request gets for /b/<id>; one event loop, answers in chunks.
'use strict';
const http = require('node:http');

const [port, backend] = process.argv.slice(2).map(Number);
const agent = new http.Agent({ keepAlive: true });

http.createServer((request, response) => {
  const length = request.headers['content-length'];
  const call = http.request({
    agent,
    host: '127.0.0.1',
    port: backend,
    method: request.method,
    path: request.url.replace('/a/', '/b/'),
    headers: length ? { 'Content-Length': length } : {},
  }, (answer) => {
    response.writeHead(answer.statusCode);
    answer.pipe(response);
  });
  call.on('error', (error) => response.writeHead(502).end(String(error)));
  request.pipe(call);
}).listen(port, '127.0.0.1');
