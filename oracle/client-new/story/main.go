// Story is what clients of every language do in crates/test/conform/tests/clients.rs: put and get, a
// watch, a lease that takes its key along, two sessions that contend for a lock. The environment says
// where and as whom: ENDPOINT (host:port), CACERT, CERT and KEY for TLS, NAME and PASSWORD for a user.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	return value
}

func config() clientv3.Config {
	c := clientv3.Config{
		Endpoints:   []string{os.Getenv("ENDPOINT")},
		DialTimeout: 30 * time.Second,
		Username:    os.Getenv("NAME"),
		Password:    os.Getenv("PASSWORD"),
	}
	if ca := os.Getenv("CACERT"); ca != "" {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(must(os.ReadFile(ca)))
		pair := must(tls.LoadX509KeyPair(os.Getenv("CERT"), os.Getenv("KEY")))
		c.TLS = &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}
	}
	return c
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := must(clientv3.New(config()))
	defer client.Close()

	must(client.Put(ctx, "story/a", "1"))
	fmt.Printf("got %s\n", must(client.Get(ctx, "story/a")).Kvs[0].Value)

	events := client.Watch(ctx, "story/a", clientv3.WithCreatedNotify())
	<-events
	must(client.Put(ctx, "story/a", "2"))
	fmt.Printf("watched %s\n", (<-events).Events[0].Kv.Value)

	lease := must(client.Grant(ctx, 2))
	must(client.Put(ctx, "story/leased", "x", clientv3.WithLease(lease.ID)))
	must(client.KeepAliveOnce(ctx, lease.ID))
	gone := client.Watch(ctx, "story/leased", clientv3.WithFilterPut())
	fmt.Printf("expired %s\n", (<-gone).Events[0].Kv.Key)

	first := must(concurrency.NewSession(client, concurrency.WithTTL(30)))
	second := must(concurrency.NewSession(client, concurrency.WithTTL(30)))
	one, two := concurrency.NewMutex(first, "story/lock"), concurrency.NewMutex(second, "story/lock")
	must(0, one.Lock(ctx))
	if err := two.TryLock(ctx); err != concurrency.ErrLocked {
		fmt.Println("locked twice:", err)
		os.Exit(1)
	}
	must(0, one.Unlock(ctx))
	must(0, two.Lock(ctx))
	must(0, two.Unlock(ctx))
	fmt.Println("locked in turn")
	must(0, first.Close())
	must(0, second.Close())
}
