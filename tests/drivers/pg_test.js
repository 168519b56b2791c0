// node-postgres through the gateway: TLS and not, prepared and not, cancel, errors with their fields.
const assert = require('node:assert');
const { Client } = require('pg');

const port = Number(process.argv[2]);
const connect = async (user, more) => {
  const client = new Client({ host: '127.0.0.1', port, user, password: 'demo', database: 'us', ...more });
  await client.connect();
  return client;
};

(async () => {
  for (const ssl of [false, { rejectUnauthorized: false }]) {
    const engineer = await connect('us-engineer', { ssl });
    const plain = await engineer.query('select id, email from users where id = 4711');
    assert.ok(plain.rows[0].email.includes('@') && !plain.rows[0].email.includes('masked'));
    for (let n = 0; n < 5; n++) {
      const named = await engineer.query({ name: 'one', text: 'select id from users where id = $1', values: [4711] });
      assert.strictEqual(named.rows[0].id, '4711');
    }
    await assert.rejects(engineer.query('select nope from users'), (e) => e.code === '42703' && e.position === '8' && !e.hint?.includes('ringfence'));
    const many = await engineer.query('select 1 as a; select 2 as b');
    assert.strictEqual(many.length, 2);
    await engineer.end();

    const analyst = await connect('singapore-analyst', { ssl });
    const notices = [];
    analyst.on('notice', (n) => notices.push(n));
    const masked = await analyst.query('select email, birth_date from users where id = $1', [4711]);
    assert.ok(masked.rows[0].email.endsWith('@masked.invalid'));
    assert.strictEqual(notices.length, 1);
    await assert.rejects(analyst.query('select body from messages'), (e) => e.code === '42P01' && e.hint.includes('no grant opens it'));
    await assert.rejects(analyst.query('insert into users values ($1)', [1]), (e) => e.code === '42501');
    assert.strictEqual((await analyst.query('select 1 as one')).rows[0].one, 1);
    // A statement of one's own can be cancelled, with the key that the gateway gave.
    const started = Date.now();
    const slow = analyst.query('select pg_sleep(20)');
    setTimeout(() => cancel(analyst), 200);
    await assert.rejects(slow, (e) => e.code === '57014');
    assert.ok(Date.now() - started < 10000);
    await analyst.end();
  }
  console.log('node-postgres: all as expected');
})().catch((e) => { console.error(e); process.exit(1); });

function cancel(client) {
  const net = require('node:net');
  const packet = Buffer.alloc(16);
  packet.writeInt32BE(16, 0);
  packet.writeInt32BE(80877102, 4);
  packet.writeInt32BE(client.processID, 8);
  packet.writeInt32BE(client.secretKey, 12);
  const socket = net.connect(port, '127.0.0.1', () => socket.end(packet));
}
