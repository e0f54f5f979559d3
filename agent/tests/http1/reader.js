// SPDX-License-Identifier: Apache-2.0 OR MIT
// Reads every file of the corpus with the parser of Node's `http` module and prints, as JSON, the messages it found.
'use strict';
const fs = require('fs');
const path = require('path');
process.noDeprecation = true;
const { HTTPParser, methods } = require('_http_common');
const allMethods = process.binding('http_parser').allMethods || methods;

function read(kind, name, bytes) {
  const isRequest = kind === 'requests';
  const requestMethod = name.split('-')[0].toUpperCase();
  const messages = [];
  const parser = new HTTPParser();
  parser.initialize(isRequest ? HTTPParser.REQUEST : HTTPParser.RESPONSE, {});
  let answered = 0;
  // Of a long head, and behind trailers, the target comes in parts.
  let begun = '';
  parser[HTTPParser.kOnHeaders | 0] = (headers, part) => {
    begun += part;
  };
  parser[HTTPParser.kOnHeadersComplete | 0] = (major, minor, headers, method, target, status) => {
    if (isRequest) {
      messages.push({ method: allMethods[method], target: begun || target });
      begun = '';
      return 0;
    }
    // Interim responses are no answers.
    if (status >= 100 && status < 200 && status !== 101) return 0;
    messages.push({ status, complete: false });
    const first = answered++ === 0;
    // What the http module says: 1 for no body, 2 for nothing but a tunnel.
    if (first && requestMethod === 'CONNECT' && status >= 200 && status < 300) return 2;
    return first && requestMethod === 'HEAD' ? 1 : 0;
  };
  parser[HTTPParser.kOnBody | 0] = () => {};
  parser[HTTPParser.kOnMessageComplete | 0] = () => {
    begun = '';
    const last = messages[messages.length - 1];
    if (last) last.complete = true;
  };
  let result = parser.execute(bytes);
  // The end of a connection completes a response that is delimited by it, and cuts off any other.
  if (!isRequest && !(result instanceof Error)) parser.finish();
  return { messages, refused: result instanceof Error };
}

const corpus = process.argv[2];
const files = {};
for (const kind of ['requests', 'responses']) {
  for (const name of fs.readdirSync(path.join(corpus, kind))) {
    files[`${kind}/${name}`] = read(kind, name, fs.readFileSync(path.join(corpus, kind, name)));
  }
}
process.stdout.write(JSON.stringify({ llhttp: process.versions.llhttp, files }));
