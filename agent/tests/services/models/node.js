// SPDX-License-Identifier: Apache-2.0 OR MIT
// node.js PORT BACKEND STYLE: one event loop.
// callbacks: http.get, no timers. timers: the same with setTimeout around every call. promises: async functions around
// http.get, no timers. fetch: async functions around fetch, no timers. fetch-timers: the same with timers/promises around
// every call. queue: callbacks over an agent with 4 sockets, so that most calls wait for one. mixed: each request in one of
// these ways, or with timers in timers, and every third leaves a call behind that is made after its answer.
'use strict';
const http = require('node:http');
const { setTimeout: sleep } = require('node:timers/promises');

const [port, backend] = process.argv.slice(2, 4).map(Number);
const style = process.argv[4];
const ways = ['callbacks', 'timers', 'nested', 'promises', 'fetch', 'fetch-timers'];
const agent = new http.Agent({ keepAlive: true, maxSockets: style === 'queue' ? 4 : 256 });

const duration = (shape) => (shape === 'one' ? 3 : 1 + Math.random() * 4);
const count = (shape) => (shape === 'one' ? 1 : 2);
const path = (shape, id, n) => `/call/${shape}/${id}/${n}`;

/** Computes for up to 0.3 ms. */
function compute() {
  const end = performance.now() + Math.random() * 0.3;
  while (performance.now() < end);
}

function get(shape, id, n, then) {
  const options = { host: '127.0.0.1', port: backend, path: path(shape, id, n), agent: shape === 'fresh' ? false : agent };
  const call = http.get(options, (answer) => {
    let body = '';
    answer.on('data', (part) => { body += part; });
    answer.on('end', () => then(body));
  });
  call.on('error', (error) => then(String(error)));
}

function pause(shape, then, way) {
  if (way === 'timers') return setTimeout(then, duration(shape));
  if (way === 'nested') return setTimeout(pause, 1, shape, then, Math.random() < 0.5 ? 'nested' : 'timers');
  compute();
  return then();
}

/** callbacks, timers, nested, queue */
function workByCallbacks(shape, id, answer, way) {
  const parts = [];
  const finish = () => pause(shape, () => answer(parts.join(' ')), way);
  if (shape === 'parallel') {
    let open = 2;
    const taken = (n) => (body) => {
      parts[n] = body;
      open -= 1;
      if (open === 0) finish();
    };
    pause(shape, () => [0, 1].forEach((n) => get(shape, id, n, taken(n))), way);
    return;
  }
  const next = (n) => pause(shape, () => get(shape, id, n, (body) => {
    parts.push(body);
    if (parts.length === count(shape)) finish(); else next(n + 1);
  }), way);
  next(0);
}

/** promises, fetch, fetch-timers */
async function workByPromises(shape, id, answer, way) {
  const byGet = (n) => new Promise((then) => get(shape, id, n, then));
  const byFetch = async (n) => (await fetch(`http://127.0.0.1:${backend}${path(shape, id, n)}`)).text();
  const call = way === 'promises' ? byGet : byFetch;
  const wait = way === 'fetch-timers' ? () => sleep(duration(shape)) : async () => compute();
  let parts = [];
  await wait();
  if (shape === 'parallel') {
    parts = await Promise.all([call(0), call(1)]);
  } else {
    parts.push(await call(0));
    if (shape !== 'one') {
      await wait();
      parts.push(await call(1));
    }
  }
  await wait();
  answer(parts.join(' '));
}

const byPromises = ['promises', 'fetch', 'fetch-timers'];
let served = 0;
http.createServer((request, response) => {
  const [, , shape, id] = request.url.split('/');
  served += 1;
  const way = style === 'mixed' ? ways[Math.floor(Math.random() * ways.length)] : style;
  const leavesBehind = style === 'mixed' && served % 3 === 0;
  const work = byPromises.includes(way) ? workByPromises : workByCallbacks;
  work(shape, id, (body) => {
    response.end(body);
    if (leavesBehind) setTimeout(get, 5, 'left', '-', 0, () => {});
  }, way);
}).listen(port, '127.0.0.1', 256);
