// SPDX-License-Identifier: Apache-2.0 OR MIT
// service.js serve PORT: answers as ../programs.rs says, with node:http and its own chunking.
// service.js call PORT PATH...: asks with http.get, on one connection.
// service.js pool PORT PATH...: asks for all at once, on four connections that are kept.
'use strict';
const http = require('node:http');
const { setTimeout: wait } = require('node:timers/promises');

const PIECE = '0123456789';

async function answer(request, response) {
  for await (const _ of request);
  const kind = request.url.split('/')[1];
  switch (kind) {
    case '204':
      return response.writeHead(204).end();
    case 'writes':
      response.writeHead(200, { 'Content-Length': 5 * PIECE.length });
      return slowly(response);
    case 'chunks':
      response.writeHead(200);
      return slowly(response);
    case 'big':
      response.writeHead(200);
      for (let part = 0; part < 16; part += 1) response.write(Buffer.alloc(64 * 1024));
      return response.end();
    default:
      return response.writeHead(Number(kind), { 'Content-Length': PIECE.length }).end(PIECE);
  }
}

async function slowly(response) {
  for (let part = 0; part < 5; part += 1) {
    await wait(100);
    response.write(PIECE);
  }
  response.end();
}

function get(agent, port, path) {
  return new Promise((resolve, reject) => {
    http.get({ agent, host: '127.0.0.1', port, path }, (response) => {
      response.resume().on('end', resolve).on('error', reject);
    }).on('error', reject);
  });
}

async function call(port, paths) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  for (const path of paths) await get(agent, port, path);
  agent.destroy();
}

async function pool(port, paths) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
  await Promise.all(paths.map((path) => get(agent, port, path)));
  agent.destroy();
}

const [mode, port, ...paths] = process.argv.slice(2);
if (mode === 'serve') http.createServer(answer).listen(Number(port), '127.0.0.1');
else if (mode === 'pool') pool(Number(port), paths);
else call(Number(port), paths);
