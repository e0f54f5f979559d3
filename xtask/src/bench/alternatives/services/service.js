// SPDX-License-Identifier: Apache-2.0 OR MIT
// service.js PORT BACKEND: answers every request with what it gets from the backend; one event loop.
'use strict';
const http = require('node:http');

const [port, backend] = process.argv.slice(2).map(Number);
const agent = new http.Agent({ keepAlive: true });

http.createServer((request, response) => {
  const call = http.get({ agent, host: '127.0.0.1', port: backend, path: '/stock' }, (answer) => {
    answer.resume();
    answer.on('end', () => response.end('ok\n'));
  });
  call.on('error', (error) => response.writeHead(502).end(String(error)));
}).listen(port, '127.0.0.1');
