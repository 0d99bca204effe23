// The story of oracle/client-new/story, told with the client that Node's users install as etcd3.
'use strict';

const fs = require('fs');
const { Etcd3, EtcdLockFailedError } = require('etcd3');

function options() {
  const { ENDPOINT, CACERT, CERT, KEY, NAME, PASSWORD } = process.env;
  const out = { hosts: `${CACERT ? 'https' : 'http'}://${ENDPOINT}` };
  if (CACERT) {
    out.credentials = {
      rootCertificate: fs.readFileSync(CACERT),
      certChain: fs.readFileSync(CERT),
      privateKey: fs.readFileSync(KEY),
    };
  }
  if (NAME) {
    out.auth = { username: NAME, password: PASSWORD };
  }
  return out;
}

async function main() {
  const client = new Etcd3(options());
  await client.put('story/a').value('1');
  console.log('got', await client.get('story/a').string());

  const watcher = await client.watch().key('story/a').create();
  const event = new Promise((resolve) => watcher.once('put', resolve));
  await client.put('story/a').value('2');
  console.log('watched', (await event).value.toString());
  await watcher.cancel();

  const gone = await client.watch().key('story/leased').create();
  const expired = new Promise((resolve) => gone.once('delete', resolve));
  const lease = client.lease(2, { autoKeepAlive: false });
  await lease.put('story/leased').value('x');
  await lease.keepaliveOnce();
  console.log('expired', (await expired).key.toString());
  await gone.cancel();

  const one = await client.lock('story/lock').ttl(30).acquire();
  try {
    await client.lock('story/lock').ttl(30).acquire();
    throw new Error('locked twice');
  } catch (failure) {
    if (!(failure instanceof EtcdLockFailedError)) throw failure;
  }
  await one.release();
  await (await client.lock('story/lock').ttl(30).acquire()).release();
  console.log('locked in turn');
  client.close();
}

main().catch((failure) => {
  console.error(failure);
  process.exit(1);
});
