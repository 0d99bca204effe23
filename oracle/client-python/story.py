"""The story of oracle/client-new/story, told with the client that Python users install as etcd3.

Its lock relies on a tenacity of its time.
"""

import os
import queue
import sys

import etcd3


def main():
    host, port = os.environ["ENDPOINT"].rsplit(":", 1)
    client = etcd3.client(
        host=host,
        port=int(port),
        ca_cert=os.environ.get("CACERT"),
        cert_cert=os.environ.get("CERT"),
        cert_key=os.environ.get("KEY"),
        user=os.environ.get("NAME"),
        password=os.environ.get("PASSWORD"),
        timeout=60,
    )
    client.put("story/a", "1")
    print("got", client.get("story/a")[0].decode())

    events = queue.Queue()
    watch = client.add_watch_callback("story/a", lambda answer: [events.put(e) for e in answer.events])
    client.put("story/a", "2")
    print("watched", events.get(timeout=60).value.decode())
    client.cancel_watch(watch)

    lease = client.lease(2)
    gone = queue.Queue()
    watch = client.add_watch_callback("story/leased", lambda answer: [gone.put(e) for e in answer.events])
    client.put("story/leased", "x", lease=lease)
    lease.refresh()
    event = gone.get(timeout=60)
    while not isinstance(event, etcd3.events.DeleteEvent):
        event = gone.get(timeout=60)
    print("expired", event.key.decode())
    client.cancel_watch(watch)

    one, two = client.lock("story/lock", ttl=30), client.lock("story/lock", ttl=30)
    assert one.acquire(timeout=60)
    if two.acquire(timeout=0.2):
        sys.exit("locked twice")
    one.release()
    assert two.acquire(timeout=60)
    two.release()
    print("locked in turn")


main()
