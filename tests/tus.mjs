// tus-js-client and tuspy against a real server: connections that break, and a server that is killed. Run by tests/tus.

import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {createHash, randomFillSync} from 'node:crypto';
import {closeSync, createReadStream, mkdtempSync, openSync, readdirSync, rmSync, statSync, writeSync} from 'node:fs';
import {createRequire} from 'node:module';
import net from 'node:net';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import test from 'node:test';

const require = createRequire(new URL('../target/tus/', import.meta.url));
const tus = require('tus-js-client');

const MIB = 1024 * 1024;
const SIZE = Number(process.env.SIZE_MIB ?? 200) * MIB;
const CHUNK = Number(process.env.CHUNK_MIB ?? 8) * MIB;
const CUTS = 10, KILLS = 3;

const home = mkdtempSync(join(tmpdir(), 'intake-tus-'));
test.after(() => rmSync(home, {recursive: true}));

// A running server. It is started again on the same directory, on another port.
async function serve(inbox) {
  const server = spawn(process.env.INTAKE, ['serve', '--listen', '127.0.0.1:0', '--udp', 'off', '--dir', inbox], {stdio: ['ignore', 'pipe', 'ignore']});
  let printed = '';
  for await (const text of server.stdout) {
    printed += text;
    const port = /:(\d+)\n/.exec(printed)?.[1];
    if (port) return {server, port: Number(port)};
  }
  throw new Error(`the server did not start: ${printed}`);
}

// A proxy that counts what clients send, and calls `passed` with it.
function listen(target, passed) {
  const open = new Set(), proxy = {bytes: 0, cut() { open.forEach(socket => socket.destroy()); }};
  const server = net.createServer(client => {
    const upstream = net.connect(target().port, '127.0.0.1');
    const end = () => { client.destroy(); upstream.destroy(); open.delete(client); };
    open.add(client);
    for (const socket of [client, upstream]) socket.on('error', end).on('close', end);
    client.on('data', piece => { proxy.bytes += piece.length; passed(proxy.bytes); });
    client.pipe(upstream);
    upstream.pipe(client);
  });
  return new Promise(resolve => server.listen(0, '127.0.0.1', () => resolve(Object.assign(proxy, {server, port: server.address().port}))));
}

const digestOf = async path => {
  const hash = createHash('sha256');
  for await (const piece of createReadStream(path)) hash.update(piece);
  return hash.digest('hex');
};

// A client of tus-js-client. Returns the URL of the upload.
const sendByJs = protocol => (endpoint, path, filename, size) => new Promise((resolve, reject) => {
  const upload = new tus.Upload(createReadStream(path), {
    endpoint,
    protocol,
    uploadSize: size,
    chunkSize: CHUNK,
    retryDelays: Array(50).fill(200),
    metadata: {filename},
    onError: reject,
    onSuccess: () => resolve(upload.url),
  });
  upload.start();
});

const TUSPY = `
import sys
from tusclient import client
endpoint, path, name, chunk = sys.argv[1:]
upload = client.TusClient(endpoint).uploader(path, chunk_size=int(chunk), retries=50, retry_delay=0.2, metadata={'filename': name})
upload.upload()
print(upload.url)
`;

// A client of tuspy.
function sendByPython(endpoint, path, filename) {
  const python = new URL('../target/tuspy/bin/python', import.meta.url).pathname;
  const client = spawn(python, ['-c', TUSPY, endpoint, path, filename, String(CHUNK)], {stdio: ['ignore', 'pipe', 'inherit']});
  let printed = '';
  client.stdout.on('data', text => { printed += text; });
  return new Promise((resolve, reject) => client.on('exit', code => code === 0 ? resolve(printed.trim()) : reject(new Error(`tuspy failed: ${code}`))));
}

const CLIENTS = {
  'tus-js-client (tus)': sendByJs('tus-v1'),
  'tus-js-client (IETF)': sendByJs('ietf-draft-05'),
  'tuspy': sendByPython,
};

for (const [client, send] of Object.entries(CLIENTS)) {
  test(`${client}: ${SIZE / MIB} MiB arrive whole, with ${CUTS} cut connections and a server killed ${KILLS} times`, async () => {
    const directory = mkdtempSync(join(home, 'case-')), source = join(directory, 'source'), inbox = join(directory, 'inbox');
    const piece = Buffer.alloc(MIB), file = openSync(source, 'w');
    for (let at = 0; at < SIZE; at += MIB) writeSync(file, randomFillSync(piece));
    closeSync(file);

    let running = await serve(inbox), broken = 0, killed = 0;
    const step = SIZE / (CUTS + KILLS + 1);
    const proxy = await listen(() => running, bytes => {
      if (bytes < step * (broken + killed + 1) || broken + killed === CUTS + KILLS) return;
      if ((broken + killed) % 4 === 3 && killed < KILLS) {
        killed++;
        running.server.kill('SIGKILL');
        serve(inbox).then(next => { running = next; });
      } else {
        broken++;
        proxy.cut();
      }
    });
    const startedAt = performance.now();
    const url = await send(`http://127.0.0.1:${proxy.port}/`, source, 'big file.bin', SIZE);
    const seconds = (performance.now() - startedAt) / 1000;
    running.server.kill();
    proxy.server.close();
    proxy.cut();
    assert.match(url, /\/\.intake\/uploads\/[0-9a-f]{32}$/);
    assert.deepEqual([broken, killed], [CUTS, KILLS]);
    assert.deepEqual(readdirSync(inbox).filter(name => !name.startsWith('.')), ['big file.bin']);
    assert.equal(statSync(join(inbox, 'big file.bin')).size, SIZE);
    assert.equal(await digestOf(join(inbox, 'big file.bin')), await digestOf(source));
    console.log(`${client}: ${SIZE} bytes arrived, ${proxy.bytes} were sent, in ${seconds.toFixed(1)} s`);
    rmSync(directory, {recursive: true});
  });
}

test('an empty file is stored by every client', async () => {
  const source = join(home, 'empty'), inbox = join(home, 'inbox');
  closeSync(openSync(source, 'w'));
  const {server, port} = await serve(inbox);
  const names = Object.keys(CLIENTS);
  for (const client of names) await CLIENTS[client](`http://127.0.0.1:${port}/`, source, client, 0);
  server.kill();
  assert.deepEqual(readdirSync(inbox).filter(name => !name.startsWith('.')).sort(), names.sort());
});
