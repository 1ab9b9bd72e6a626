// Tests of the upload page, run by tests/page: Chromium is driven by playwright-core, and talks to `intake serve` through a
// TCP proxy, which slows connections down, cuts them, and swallows answers.

import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {createHash, randomBytes} from 'node:crypto';
import {once} from 'node:events';
import fs from 'node:fs';
import {createRequire} from 'node:module';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import {after, before, test} from 'node:test';

const require = createRequire(new URL('../target/page/', import.meta.url));
const {chromium} = require('playwright-core');
const AXE = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const SHOTS = new URL('../target/page/', import.meta.url).pathname;
const MB = 1000 * 1000;
// How long a test waits for anything, in milliseconds.
const PATIENCE = 60000;

const sha256 = content => createHash('sha256').update(content).digest('hex');

// ---- The server, and the proxy in front of it.

class Server {
  constructor(dir) {
    this.dir = dir;
  }

  async start() {
    const words = ['serve', '-l', '127.0.0.1:0', '--udp', 'off', '-d', this.dir, '--max-file-size', '64M'];
    this.child = spawn(process.env.INTAKE, words, {stdio: ['ignore', 'pipe', 'ignore']});
    const [line] = await once(this.child.stdout, 'data');
    this.port = Number(/tcp \S+:(\d+)/.exec(line)[1]);
    return this;
  }

  async stop(signal = 'SIGTERM') {
    if (this.child.exitCode !== null || this.child.signalCode) return;
    this.child.kill(signal);
    await once(this.child, 'exit');
  }

  names() {
    return fs.readdirSync(this.dir).filter(name => name !== '.intake').sort();
  }

  digest(name) {
    return sha256(fs.readFileSync(path.join(this.dir, name)));
  }
}

class Proxy {
  isDown = false;
  // The proxy neither reads nor forwards, as after a silent loss of the network.
  isDead = false;
  // The most bytes a second to the server, over all connections.
  rate = Infinity;
  // After this many further bytes to the server, every connection is reset, once.
  cutAfter = Infinity;
  // Resets the connection instead of forwarding the next answers.
  swallowedAnswers = 0;
  bytes = 0;
  connections = new Set();
  free = 0;

  constructor(server) {
    this.server = server;
  }

  async start() {
    this.listener = net.createServer(client => this.carry(client)).listen(0, '127.0.0.1');
    await once(this.listener, 'listening');
    this.url = `http://127.0.0.1:${this.listener.address().port}/`;
    return this;
  }

  carry(client) {
    if (this.isDown) return client.resetAndDestroy();
    const server = net.connect(this.server.port, '127.0.0.1');
    const pair = [client, server];
    this.connections.add(pair);
    const end = () => {
      this.connections.delete(pair);
      for (const socket of pair) if (!socket.destroyed) socket.resetAndDestroy();
    };
    for (const socket of pair) socket.on('error', end);
    // The server's last bytes still arrive.
    server.on('close', () => client.destroySoon());
    client.on('close', () => (client.readableEnded ? this.connections.delete(pair) : end()));
    client.on('data', chunk => {
      if (this.isDead) return client.pause();
      this.bytes += chunk.length;
      this.cutAfter -= chunk.length;
      if (this.cutAfter <= 0) return this.cut();
      server.write(chunk);
      if (this.rate === Infinity) return;
      const now = performance.now();
      this.free = Math.max(this.free, now) + chunk.length / this.rate * 1000;
      client.pause();
      setTimeout(() => client.resume(), this.free - now);
    });
    client.on('end', () => server.end());
    server.on('data', chunk => {
      if (this.swallowedAnswers) {
        this.swallowedAnswers--;
        return end();
      }
      client.write(chunk);
    });
    server.on('end', () => client.end());
  }

  // Waits until this many bytes went to the server.
  async carried(bytes) {
    const deadline = performance.now() + PATIENCE;
    while (this.bytes < bytes) {
      assert.ok(performance.now() < deadline, `only ${this.bytes} bytes were sent`);
      await new Promise(resolve => setTimeout(resolve, 10));
    }
  }

  cut() {
    this.cutAfter = Infinity;
    for (const pair of this.connections) for (const socket of pair) socket.resetAndDestroy();
  }

  stop() {
    this.listener.close();
    this.cut();
  }
}

let browser, home;

before(async () => {
  home = fs.mkdtempSync(path.join(os.tmpdir(), 'page'));
  fs.mkdirSync(SHOTS, {recursive: true});
  browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
});

after(async () => {
  await browser?.close();
  fs.rmSync(home, {recursive: true, force: true});
});

// A test with its own server, proxy and page. A violation of the page's policy, or an exception in it, fails the test.
function pageTest(name, options, body) {
  if (!body) [options, body] = [{}, options];
  test(name, {timeout: 4 * PATIENCE}, async () => {
    const server = await new Server(fs.mkdtempSync(path.join(home, 'inbox'))).start();
    const proxy = await new Proxy(server).start();
    const context = await browser.newContext({viewport: {width: 1280, height: 900}, ...options});
    context.setDefaultTimeout(PATIENCE);
    const page = await context.newPage(), faults = [];
    page.on('pageerror', error => faults.push(error.message));
    page.on('console', message => { if (/Content Security Policy/.test(message.text())) faults.push(message.text()); });
    page.on('request', request => { if (!/^(data|blob):/.test(request.url()) && !request.url().startsWith(proxy.url)) faults.push(request.url()); });
    page.on('dialog', dialog => dialog.accept().catch(() => {}));
    try {
      await page.goto(proxy.url);
      await body({page, proxy, server, context});
      assert.deepEqual(faults, []);
    } finally {
      await context.close();
      proxy.stop();
      await server.stop();
    }
  });
}

// ---- Files to send, and states to see.

let folders = 0;

// Writes files into a new folder. Returns the paths in the order of the names.
function writeFiles(contents) {
  const folder = path.join(home, `files${++folders}`);
  return Object.entries(contents).map(([name, content]) => {
    const file = path.join(folder, name);
    fs.mkdirSync(path.dirname(file), {recursive: true});
    fs.writeFileSync(file, content);
    return file;
  });
}

const choose = (page, files) => page.setInputFiles('#files', files);
const headline = (page, text) => page.locator('#headline', {hasText: text}).waitFor();
const row = (page, name) => page.locator('.row', {has: page.locator('.name', {hasText: name})});
const noteOf = (page, name) => row(page, name).locator('.note');
const percent = page => page.locator('#bar').getAttribute('aria-valuenow').then(Number);

async function waitForPercent(page, least) {
  await page.waitForFunction(least => document.getElementById('bar').ariaValueNow >= least, least);
}

// Drops files and folders from the disk, as a file manager does.
async function drop(page, context, files) {
  const devtools = await context.newCDPSession(page);
  const data = {items: [], files, dragOperationsMask: 1};
  for (const type of ['dragEnter', 'dragOver', 'drop']) {
    await devtools.send('Input.dispatchDragEvent', {type, x: 640, y: 260, data});
    if (type === 'dragOver') await page.waitForFunction(() => document.body.classList.contains('over'));
    if (type === 'dragOver') await page.screenshot({path: `${SHOTS}dragging.png`});
  }
}

pageTest('the page is one file below 40 KiB, and nothing else is loaded', async ({page, proxy}) => {
  const answer = await page.request.get(proxy.url);
  assert.ok((await answer.body()).length < 40 * 1024);
  assert.match(answer.headers()['content-security-policy'], /default-src 'none'.*script-src 'sha256-[^']+';/);
  assert.equal(await page.evaluate(() => performance.getEntriesByType('resource').length), 0);
});

pageTest('dropped files and the files of dropped folders are stored', async ({page, context, server}) => {
  const files = writeFiles({'report.pdf': 'first', 'album/one.jpg': 'one', 'album/inner/two.jpg': 'two', 'album/.hidden': 'not sent'});
  await drop(page, context, [files[0], path.dirname(files[1])]);
  await page.locator('#alert', {hasText: '1 file left out'}).waitFor();
  await headline(page, 'All 3 files are stored');
  assert.deepEqual(server.names(), ['one.jpg', 'report.pdf', 'two.jpg']);
  assert.equal(server.digest('two.jpg'), sha256('two'));
  assert.doesNotMatch(await page.locator('body').getAttribute('class'), /over/);
});

pageTest('files that a page drops, and pasted ones, are stored', async ({page, server}) => {
  for (const [kind, field] of [['drop', 'dataTransfer'], ['paste', 'clipboardData']]) {
    await page.evaluate(([kind, field]) => {
      const data = new DataTransfer();
      data.items.add(new File([kind], `${kind}.txt`));
      document.body.dispatchEvent(kind === 'drop' ? new DragEvent(kind, {[field]: data, bubbles: true, cancelable: true})
        : new ClipboardEvent(kind, {[field]: data, bubbles: true}));
    }, [kind, field]);
    await noteOf(page, `${kind}.txt`).filter({hasText: /^Stored/}).waitFor();
  }
  assert.deepEqual(server.names(), ['drop.txt', 'paste.txt']);
});

pageTest('a receipt tells the name, the size and the digest that the server compared', async ({page, server, context}) => {
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  const contents = Object.fromEntries([0, 1, 55, 56, 63, 64, 119, 70000, 3 * MB + 1].map(size => [`${size}.bin`, randomBytes(size)]));
  await choose(page, writeFiles(contents));
  await headline(page, 'All 9 files are stored');
  await page.getByRole('button', {name: 'Copy receipts'}).click();
  await page.locator('#alert', {hasText: 'Copied'}).waitFor();
  const lines = Object.entries(contents).map(([name, content]) => `done ${content.length} sha256:${sha256(content)} ${name}\n`);
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), lines.join(''));
  for (const name in contents) assert.equal(server.digest(name), sha256(contents[name]));
  await row(page, '70000.bin').getByRole('button', {name: 'Copy the receipt'}).click();
  await page.waitForFunction(line => navigator.clipboard.readText().then(text => text === line), lines[7]);
});

pageTest('a file keeps its date, and a taken name is told', async ({page, server}) => {
  const [first] = writeFiles({'same name.txt': 'first'}), [second] = writeFiles({'same name.txt': 'second'});
  fs.utimesSync(first, 1700000000, 1700000000);
  await choose(page, first);
  await headline(page, 'The file is stored');
  await choose(page, second);
  await headline(page, 'All 2 files are stored');
  assert.equal(fs.statSync(path.join(server.dir, 'same name.txt')).mtimeMs, 1700000000000);
  await page.locator('.note', {hasText: 'Stored as same name.txt.1'}).waitFor();
  assert.equal(server.digest('same name.txt.1'), sha256('second'));
});

pageTest('names are text, whatever they hold', async ({page, server}) => {
  const names = ['<img src=x onerror=alert(1)>.txt', '100% & more?#;+.txt', 'наука 科学 🎈.txt', "it's \"quoted\".txt"];
  await choose(page, writeFiles(Object.fromEntries(names.map(name => [name, name]))));
  await headline(page, 'All 4 files are stored');
  assert.deepEqual(server.names(), [...names].sort());
  assert.equal(await page.locator('main img').count(), 0);
});

pageTest('of 1,000 files each is stored and counted, and few rows are in the document', async ({page, server}) => {
  const contents = Object.fromEntries(Array.from({length: 1000}, (_, i) => [`file ${String(i).padStart(4, '0')}`, `content ${i} `.repeat(i)]));
  await choose(page, writeFiles(contents));
  let most = 0;
  for (let isDone = false; !isDone;) {
    most = Math.max(most, await page.locator('.row').count());
    isDone = await page.locator('#headline').textContent() === 'All 1,000 files are stored';
  }
  assert.ok(most > 5 && most < 60, `${most} rows`);
  assert.equal(await page.locator('#chip-all').textContent(), 'All 1,000');
  assert.equal(await page.locator('#chip-stored').textContent(), 'Stored 1,000');
  assert.equal(server.names().length, 1000);
  for (const name in contents) assert.equal(server.digest(name), sha256(contents[name]));
  await page.locator('#view').evaluate(view => { view.scrollTop = 500 * 64; });
  await row(page, 'file 0500').waitFor();
  assert.equal(await row(page, 'file 0500').getAttribute('aria-posinset'), '501');
});

pageTest('a refused name is explained, and can be sent under another one', async ({page, server}) => {
  page.removeAllListeners('dialog');
  page.on('dialog', dialog => dialog.accept('profile'));
  await choose(page, writeFiles({'.profile': 'content', 'other.txt': 'other'}));
  await headline(page, '1 file stored, 1 not');
  const trouble = page.locator('#troubles');
  await trouble.getByText('1 file: not allowed').waitFor();
  assert.match(await trouble.textContent(), /The server says: .*begin.*\(403\)/);
  assert.match(await noteOf(page, '.profile').textContent(), /^Not stored: .*begin/);
  await trouble.getByRole('button', {name: 'Rename .profile'}).click();
  await headline(page, 'All 2 files are stored');
  assert.equal(server.digest('profile'), sha256('content'));
  assert.ok(await trouble.isHidden());
});

pageTest('a file that is too large is refused before it is sent, and the others are stored', async ({page, proxy, server}) => {
  const files = writeFiles({'large.bin': '', 'small.txt': 'small'});
  fs.truncateSync(files[0], 70 * MB);
  await choose(page, files);
  await headline(page, '1 file stored, 1 not');
  await page.locator('#troubles').getByText('1 file: too large').waitFor();
  assert.deepEqual(server.names(), ['small.txt']);
  assert.ok(proxy.bytes < 50 * MB, `${proxy.bytes} bytes were sent`);
});

// Answers of proxies and other servers, and the message for each.
const STATUSES = {
  400: 'not accepted', 403: 'not allowed', 408: 'too slow', 409: 'name in use', 411: 'length missing', 412: 'name taken',
  413: 'too large', 415: 'encoded on the way', 417: 'refused', 421: 'wrong address', 422: 'damaged on the way',
  431: 'name too long', 500: 'disk failure', 505: 'refused', 507: 'no space left',
};

pageTest('each refusal has clear words, and what failed can be sent again', async ({page, server}) => {
  await page.route('**/status-*', route => {
    const status = Number(/\d+$/.exec(route.request().url())[0]);
    return route.fulfill({status, contentType: 'text/plain', body: `no ${status} the reason of ${status}\n`});
  });
  const names = Object.keys(STATUSES).map(status => `status-${status}`);
  await choose(page, writeFiles(Object.fromEntries(names.map(name => [name, name]))));
  await headline(page, `0 files stored, ${names.length} not`);
  for (const [status, words] of Object.entries(STATUSES)) {
    const group = page.locator('.group', {hasText: `(${status})`});
    assert.match(await group.textContent(), new RegExp(`^1 file: ${words}.*The server says: the reason of ${status} `));
    assert.ok((await group.textContent()).includes(`status-${status}`));
  }
  await page.unroute('**/status-*');
  await page.getByRole('button', {name: `Retry ${names.length} that failed`}).click();
  await headline(page, `All ${names.length} files are stored`);
  assert.deepEqual(server.names(), names.sort());
});

pageTest('many refusals for one reason are one group', async ({page}) => {
  await page.route('**/full-*', route => route.fulfill({status: 507, body: 'no 507 the disk is full\n'}));
  await choose(page, writeFiles(Object.fromEntries(Array.from({length: 80}, (_, i) => [`full-${i}`, 'x']))));
  await headline(page, '0 files stored, 80 not');
  assert.equal(await page.locator('.group').count(), 1);
  assert.match(await page.locator('.group').textContent(), /80 files: no space left.*and 74 more$/);
});

pageTest('while the server is busy, the page waits as long as it is told, and says so', async ({page, server}) => {
  let isBusy = true;
  await page.route('**/*.txt', route => (isBusy ? route.fulfill({status: 503, headers: {'Retry-After': '1000'}, body: 'no 503 retry=1000 too many files\n'}) : route.continue()));
  await choose(page, writeFiles({'a.txt': 'a', 'b.txt': 'b'}));
  await page.locator('#hold-text', {hasText: 'It says: too many files (503). Next try'}).waitFor();
  assert.match(await page.locator('#count').textContent(), /^in 1[67] min$/);
  isBusy = false;
  await page.getByRole('button', {name: 'Try now'}).click();
  await headline(page, 'All 2 files are stored');
  assert.deepEqual(server.names(), ['a.txt', 'b.txt']);
});

pageTest('a missing token holds all files', async ({page}) => {
  let asked = 0;
  await page.route('**/*.txt', route => (++asked, route.fulfill({status: 401, body: 'no 401 a token is needed\n'})));
  await choose(page, writeFiles(Object.fromEntries(Array.from({length: 50}, (_, i) => [`${i}.txt`, 'x']))));
  await page.locator('#hold-text', {hasText: 'The server says: a token is needed.'}).waitFor();
  await page.waitForFunction(() => document.querySelectorAll('.row.sending').length === 0);
  assert.ok(asked < 10, `${asked} requests`);
  assert.match(await page.locator('#headline').textContent(), /^Waiting: 0 of 50 files stored$/);
});

pageTest('after a lost connection the files go on by themselves, with a countdown', async ({page, proxy, server}) => {
  const content = randomBytes(30 * MB);
  proxy.rate = 20 * MB;
  await choose(page, writeFiles({'large.bin': content, 'small.txt': 'small'}));
  await waitForPercent(page, 30);
  proxy.isDown = true;
  proxy.cut();
  await page.locator('#hold-title', {hasText: 'Connection lost'}).waitFor();
  await page.locator('#count', {hasText: /^in \d s$/}).waitFor();
  proxy.isDown = false;
  await headline(page, 'All 2 files are stored');
  assert.deepEqual(server.names(), ['large.bin', 'small.txt']);
  assert.equal(server.digest('large.bin'), sha256(content));
});

pageTest('a connection that is silently lost is given up', async ({page, proxy, server}) => {
  proxy.isDead = true;
  await choose(page, writeFiles({'a.bin': randomBytes(7 * MB)}));
  await page.locator('.row.sending').waitFor();
  await page.clock.install();
  await page.waitForFunction(() => [...active].every(item => item.xhr));
  // Longer than any request may be without progress; once more while the system still takes some of the content.
  const isLost = () => page.locator('#hold-title', {hasText: 'Connection lost'}).isVisible();
  while (!await isLost()) await page.clock.fastForward(130000);
  proxy.isDead = false;
  await page.getByRole('button', {name: 'Try now'}).click();
  await headline(page, 'The file is stored');
  assert.deepEqual(server.names(), ['a.bin']);
});

pageTest('when the browser is online again, the page does not wait', async ({page, proxy, context}) => {
  await context.setOffline(true);
  await choose(page, writeFiles({'a.txt': 'a'}));
  await page.locator('#hold-text', {hasText: 'This device is offline'}).waitFor();
  // The next try is now half a minute away.
  await page.evaluate(() => { hold.until = performance.now() + 1e6; });
  await context.setOffline(false);
  await headline(page, 'The file is stored');
});

pageTest('a server that is killed and started again gets every file once', async ({page, proxy, server}) => {
  const contents = {'large.bin': randomBytes(30 * MB), 'medium.bin': randomBytes(7 * MB)};
  proxy.rate = 20 * MB;
  await choose(page, writeFiles(contents));
  await waitForPercent(page, 30);
  await server.stop('SIGKILL');
  await page.locator('#hold-title', {hasText: 'Connection lost'}).waitFor();
  await server.start();
  await headline(page, 'All 2 files are stored');
  assert.deepEqual(server.names(), ['large.bin', 'medium.bin']);
  for (const name in contents) assert.equal(server.digest(name), sha256(contents[name]));
});

pageTest('a small file whose answer is lost is not stored twice', async ({page, proxy, server}) => {
  // On a connection that was used before, the browser sends the request again by itself.
  proxy.cut();
  proxy.swallowedAnswers = 1;
  await choose(page, writeFiles({'a.txt': 'content'}));
  await page.locator('#troubles').getByText('this file is most likely stored').waitFor();
  assert.deepEqual(server.names(), ['a.txt']);
  await page.locator('#troubles').getByRole('button', {name: 'Send again'}).click();
  await headline(page, 'The file is stored');
  assert.deepEqual(server.names(), ['a.txt', 'a.txt.1']);
});

pageTest('a file that is gone when its turn comes is not taken for a lost connection', async ({page, server, proxy}) => {
  proxy.rate = 10 * MB;
  // The third waits for one of the first two.
  const files = writeFiles({'first.bin': randomBytes(12 * MB), 'second.bin': randomBytes(12 * MB), 'third.bin': randomBytes(12 * MB)});
  await choose(page, files);
  await noteOf(page, 'third.bin').filter({hasText: 'Waiting'}).waitFor();
  fs.rmSync(files[2]);
  await headline(page, '2 files stored, 1 not');
  assert.match(await page.locator('#troubles').textContent(), /it has changed or is gone/);
  assert.ok(await page.locator('#hold').isHidden());
  assert.deepEqual(server.names(), ['first.bin', 'second.bin']);
});

pageTest('unfinished files can be cancelled, one or all', async ({page, proxy, server}) => {
  proxy.rate = 4 * MB;
  await choose(page, writeFiles({'a.bin': randomBytes(20 * MB), 'b.bin': randomBytes(20 * MB), 'c.bin': randomBytes(20 * MB)}));
  await waitForPercent(page, 1);
  await row(page, 'a.bin').getByRole('button', {name: 'Do not send'}).click();
  await row(page, 'a.bin').waitFor({state: 'detached'});
  await page.getByRole('button', {name: 'Cancel the rest'}).click();
  await page.locator('#list').waitFor({state: 'hidden'});
  proxy.rate = Infinity;
  await choose(page, writeFiles({'d.txt': 'd'}));
  await headline(page, 'The file is stored');
  assert.deepEqual(server.names(), ['d.txt']);
});

pageTest('the page asks before it is left while files are sent', async ({page, proxy}) => {
  page.removeAllListeners('dialog');
  proxy.rate = 4 * MB;
  await page.getByRole('heading', {name: 'Send files'}).click();
  await choose(page, writeFiles({'a.bin': randomBytes(20 * MB)}));
  await waitForPercent(page, 1);
  const asked = page.waitForEvent('dialog');
  await page.close({runBeforeUnload: true});
  const dialog = await asked;
  assert.equal(dialog.type(), 'beforeunload');
  await dialog.dismiss();
  proxy.rate = Infinity;
  await headline(page, 'The file is stored');
});

pageTest('without script a form sends the files', {javaScriptEnabled: false}, async ({page, server}) => {
  assert.ok(await page.locator('#zone').isHidden());
  await page.screenshot({path: `${SHOTS}no-script.png`});
  const content = randomBytes(200000);
  await page.setInputFiles('#plain', writeFiles({'a.txt': 'a', 'b b.bin': content}));
  await page.getByRole('button', {name: 'Send', exact: true}).click();
  await page.getByText('b b.bin').waitFor();
  await page.screenshot({path: `${SHOTS}no-script-stored.png`});
  assert.deepEqual(server.names(), ['a.txt', 'b b.bin']);
  assert.equal(server.digest('b b.bin'), sha256(content));
});

pageTest('everything can be reached and done with the keyboard', async ({page, proxy, context, server}) => {
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  const focused = () => page.evaluate(() => document.activeElement.ariaLabel || document.activeElement.textContent.trim() || document.activeElement.id);
  const tabTo = async label => {
    for (let steps = 0; await focused() !== label; steps++) {
      assert.ok(steps < 20, `Tab does not lead to “${label}”`);
      await page.keyboard.press('Tab');
    }
    assert.notEqual(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), 'none');
  };
  // Asked for early: Chromium must know of it before the key comes.
  const chooser = page.waitForEvent('filechooser');
  await tabTo('Choose files');
  await page.keyboard.press('Enter');
  await (await chooser).setFiles(writeFiles({'a.txt': 'a', '.b': 'b'}));
  await headline(page, '1 file stored, 1 not');
  page.removeAllListeners('dialog');
  page.on('dialog', dialog => dialog.accept('b'));
  await tabTo('Rename .b');
  await page.keyboard.press('Enter');
  await headline(page, 'All 2 files are stored');
  await tabTo('Copy the receipt: b');
  await page.keyboard.press('Space');
  await page.waitForFunction(() => navigator.clipboard.readText().then(text => /^done 1 \S+ b\n$/.test(text)));
  assert.equal(await focused(), 'Copy the receipt: b');
  await page.keyboard.press('Shift+Tab');
  assert.deepEqual(server.names(), ['a.txt', 'b']);
});

const PHONE = {viewport: {width: 390, height: 844}, isMobile: true, hasTouch: true, deviceScaleFactor: 2};

pageTest('on a phone files are chosen by touch, and large enough to touch', PHONE, async ({page, server}) => {
  const chooser = page.waitForEvent('filechooser');
  await page.screenshot({path: `${SHOTS}phone.png`});
  assert.equal((await page.locator('#zone').innerText()).split('\n')[0], 'Choose files to send');
  await page.getByRole('button', {name: 'Choose files'}).tap();
  await (await chooser).setFiles(writeFiles({'a.txt': 'a', 'b.txt': 'b'}));
  await headline(page, 'All 2 files are stored');
  for (const button of await page.locator('button:visible').all()) {
    const {width, height} = await button.boundingBox();
    assert.ok(width >= 32 && height >= 32, `${await button.textContent()}: ${width} × ${height}`);
  }
  await page.screenshot({path: `${SHOTS}phone-stored.png`});
  assert.deepEqual(server.names(), ['a.txt', 'b.txt']);
});

pageTest('a screen reader is told what was added, what failed, and the end', async ({page}) => {
  const heard = text => page.waitForFunction(text => document.getElementById('status').textContent.includes(text), text, {polling: 50});
  const end = heard('Finished: 1 file stored, 1 not');
  await page.evaluate(() => {
    window.said = [];
    new MutationObserver(() => said.push(document.getElementById('status').textContent)).observe(document.getElementById('status'), {childList: true, subtree: true});
  });
  await choose(page, writeFiles({'.a': 'a', 'b.txt': 'b'}));
  await end;
  assert.equal(await page.locator('#status').getAttribute('role'), 'status');
  assert.equal(await page.locator('#bar').getAttribute('role'), 'progressbar');
});

// Screenshots of a state, each in both widths and schemes, with a look at contrast, labels, roles and what is too wide.
async function look(page, name) {
  for (const width of [1280, 390]) {
    for (const colorScheme of ['light', 'dark']) {
      await page.setViewportSize({width, height: width === 390 ? 844 : 900});
      await page.emulateMedia({colorScheme, reducedMotion: 'reduce'});
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name} is too wide at ${width}`);
      await page.waitForTimeout(250);
      await page.screenshot({path: `${SHOTS}${name}-${width}-${colorScheme}.png`});
      await page.evaluate(AXE);
      const {violations} = await page.evaluate(() => axe.run({resultTypes: ['violations']}));
      assert.deepEqual(violations.map(({id, nodes}) => [id, ...nodes.map(node => node.html.slice(0, 200) + node.failureSummary)]), [], `${name} at ${width}, ${colorScheme}`);
    }
  }
  await page.setViewportSize({width: 1280, height: 900});
}

pageTest('after a reload a large file is resumed when it is chosen again', async ({page, proxy, server}) => {
  const content = randomBytes(24 * MB), files = writeFiles({'large.bin': content});
  proxy.rate = 4 * MB;
  await choose(page, files);
  await proxy.carried(10 * MB);
  await page.reload();
  proxy.rate = Infinity;
  await page.locator('#left-title').waitFor();
  await look(page, 'left');
  assert.match(await page.locator('#left-list').textContent(), /^large\.bin · 24 MB/);
  const before = proxy.bytes;
  await choose(page, files);
  await headline(page, 'The file is stored');
  await page.locator('#left').waitFor({state: 'hidden'});
  assert.ok(proxy.bytes - before < 20 * MB, `${proxy.bytes - before} bytes were sent after the reload`);
  assert.deepEqual(server.names(), ['large.bin']);
  assert.equal(server.digest('large.bin'), sha256(content));
});

pageTest('another file of the same name and size is not taken for the one that was begun', async ({page, proxy, server}) => {
  const [first] = writeFiles({'large.bin': randomBytes(24 * MB)}), other = randomBytes(24 * MB), [second] = writeFiles({'large.bin': other});
  for (const file of [first, second]) fs.utimesSync(file, 1700000000, 1700000000);
  proxy.rate = 4 * MB;
  await choose(page, first);
  await proxy.carried(10 * MB);
  await page.reload();
  proxy.rate = Infinity;
  await page.locator('#left-title').waitFor();
  await choose(page, second);
  await headline(page, 'The file is stored');
  assert.equal(server.digest('large.bin'), sha256(other));
  await page.getByRole('button', {name: 'Forget large.bin'}).click();
  await page.locator('#left').waitFor({state: 'hidden'});
});

pageTest('a large file whose last answer is lost is stored once', async ({page, proxy, server}) => {
  const content = randomBytes(20 * MB);
  await page.route('**/.intake/uploads/*', async route => {
    if (route.request().method() !== 'PATCH') return route.continue();
    await route.fetch();
    await route.abort('connectionreset');
    await page.unroute('**/.intake/uploads/*');
  });
  await choose(page, writeFiles({'large.bin': content}));
  await headline(page, 'The file is stored');
  assert.deepEqual(server.names(), ['large.bin']);
  assert.equal(server.digest('large.bin'), sha256(content));
});

pageTest('it looks right, and its contrast, labels and roles are right', async ({page, proxy}) => {
  await look(page, 'empty');
  proxy.rate = 3 * MB;
  await choose(page, writeFiles({
    'budget 2026.ods': randomBytes(90000), 'report.pdf': randomBytes(300000), 'holiday-in-the-mountains-a-name-that-is-too-long-for-a-phone.mp4': randomBytes(38 * MB),
    'scan.tif': randomBytes(7 * MB), 'disk.img': randomBytes(26 * MB), 'notes.md': randomBytes(2000), 'photo 1.jpg': randomBytes(3 * MB), 'photo 2.jpg': randomBytes(4 * MB),
  }));
  await waitForPercent(page, 35);
  await look(page, 'sending');
  proxy.isDown = true;
  proxy.cut();
  await page.locator('#hold-title', {hasText: 'Connection lost'}).waitFor();
  await look(page, 'lost');
  proxy.isDown = false;
  proxy.rate = Infinity;
  await choose(page, writeFiles({'.profile': 'x', '-f': 'y'}));
  await headline(page, '8 files stored, 2 not');
  await look(page, 'refused');
  await page.getByRole('button', {name: 'Clear the list'}).click();
  await choose(page, writeFiles({'a.txt': 'a', 'b.txt': 'b', 'c.txt': 'c'}));
  await headline(page, 'All 3 files are stored');
  await look(page, 'stored');
});
