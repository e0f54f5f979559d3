<?php
// SPDX-License-Identifier: Apache-2.0 OR MIT
// Behind Apache's prefork processes, one request each at a time; fsockopen for the calls, pfsockopen for pooled ones.

[, , $shape, $id] = explode('/', $_SERVER['REQUEST_URI']);
$backend = (int) getenv('BACKEND');

function pause(string $shape): void
{
    usleep($shape === 'one' ? 3000 : random_int(1000, 5000));
}

function call(string $shape, string $id, int $n): string
{
    global $backend;
    $is_fresh = $shape === 'fresh';
    $stream = $is_fresh ? fsockopen('127.0.0.1', $backend) : pfsockopen('127.0.0.1', $backend);
    $close = $is_fresh ? "Connection: close\r\n" : '';
    fwrite($stream, "GET /call/$shape/$id/$n HTTP/1.1\r\nHost: backend\r\n$close\r\n");
    $length = 0;
    while (($line = rtrim((string) fgets($stream))) !== '') {
        if (stripos($line, 'content-length:') === 0) {
            $length = (int) substr($line, 15);
        }
    }
    $body = '';
    while (strlen($body) < $length && !feof($stream)) {
        $body .= fread($stream, $length - strlen($body));
    }
    if ($is_fresh) {
        fclose($stream);
    }
    return $body;
}

pause($shape);
$parts = [call($shape, $id, 0)];
if ($shape !== 'one') {
    pause($shape);
    $parts[] = call($shape, $id, 1);
}
pause($shape);
$body = implode(' ', $parts);
header('Content-Length: ' . strlen($body));
echo $body;
