// SPDX-License-Identifier: Apache-2.0 OR MIT
// node_cluster.js PORT BACKEND STYLE: node.js in two processes that share the port.
'use strict';
const cluster = require('node:cluster');

if (cluster.isPrimary) {
  cluster.setupPrimary({ args: process.argv.slice(2) });
  for (let n = 0; n < 2; n += 1) cluster.fork();
  process.on('SIGTERM', () => process.exit(0));
} else {
  require('./node.js');
}
