// Answers of one mebibyte, which make the client ping while it measures the
// connection: none may cost the connection.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func main() {
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{os.Getenv("EP")}, DialTimeout: 5 * time.Second})
	if err != nil {
		fmt.Println("ERR", err)
		os.Exit(1)
	}
	defer cli.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	value := string(bytes.Repeat([]byte("x"), 1<<20))
	cli.Put(ctx, "large", value)
	failed := 0
	tell := func(call string, n int, err error) {
		if err != nil {
			failed++
			fmt.Println(call, n, err)
		}
	}
	for n := 0; n < 10; n++ {
		_, err := cli.Put(ctx, "large", value, clientv3.WithPrevKV())
		tell("put", n, err)
		_, err = cli.Txn(ctx).Then(clientv3.OpGet("large"), clientv3.OpPut("other", "v")).Commit()
		tell("txn", n, err)
		_, err = cli.Delete(ctx, "large", clientv3.WithPrevKV())
		tell("delete", n, err)
		_, err = cli.Put(ctx, "large", value)
		tell("put again", n, err)
		_, err = cli.Get(ctx, "large")
		tell("get", n, err)
	}
	fmt.Println("failed", failed)
	if failed == 0 {
		fmt.Println("OK")
	}
}
