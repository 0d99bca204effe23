// Command watchraw sends scripted requests over raw watch streams and prints every response, so
// that two servers can be compared line by line. What differs between servers by nature (ids of
// cluster and member, term, absolute revisions) is left out or shown relative to the start.
package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

func ck(err error) {
	if err != nil {
		fmt.Println("ERR", err)
		os.Exit(1)
	}
}

var base int64

func rel(rev int64) string {
	if rev == 0 {
		return "0"
	}
	return fmt.Sprintf("R%+d", rev-base)
}

func kv(kv *mvccpb.KeyValue) string {
	if kv == nil {
		return "-"
	}
	v := string(kv.Value)
	if len(v) > 20 {
		v = fmt.Sprintf("%d bytes", len(v))
	}
	return fmt.Sprintf("{%q=%q c=%s m=%s v=%d l=%d}", kv.Key, v, rel(kv.CreateRevision), rel(kv.ModRevision), kv.Version, kv.Lease)
}

func show(r *pb.WatchResponse) string {
	s := fmt.Sprintf("  id=%d rev=%s", r.WatchId, rel(r.Header.GetRevision()))
	if r.Created {
		s += " created"
	}
	if r.Canceled {
		s += " canceled"
	}
	if r.CompactRevision != 0 {
		s += " compact=" + rel(r.CompactRevision)
	}
	if r.CancelReason != "" {
		s += fmt.Sprintf(" reason=%q", r.CancelReason)
	}
	if r.Fragment {
		s += " fragment"
	}
	for _, e := range r.Events {
		s += fmt.Sprintf("\n    %s %s prev=%s", e.Type, kv(e.Kv), kv(e.PrevKv))
	}
	return s
}

type stream struct {
	pb.Watch_WatchClient
	got  chan *pb.WatchResponse
	end  chan error
	stop context.CancelFunc
}

func open(c pb.WatchClient, pairs ...string) *stream {
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	ctx = metadata.AppendToOutgoingContext(ctx, pairs...)
	w, err := c.Watch(ctx)
	ck(err)
	s := &stream{w, make(chan *pb.WatchResponse, 100000), make(chan error, 1), stop}
	go func() {
		for {
			r, err := w.Recv()
			if err != nil {
				s.end <- err
				return
			}
			s.got <- r
		}
	}()
	return s
}

func (s *stream) create(r *pb.WatchCreateRequest) {
	ck(s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}))
}

func (s *stream) cancel(id int64) {
	ck(s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}))
}

func (s *stream) progress() {
	ck(s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}))
}

// until prints what comes until nothing came for a while. Events go by watch: etcd's order between
// the watches of a stream is random.
func (s *stream) until(quiet time.Duration) {
	var events []*pb.WatchResponse
	defer func() {
		slices.SortStableFunc(events, func(a, b *pb.WatchResponse) int { return cmp.Compare(a.WatchId, b.WatchId) })
		for _, r := range events {
			fmt.Println(show(r))
		}
	}()
	for {
		select {
		case r := <-s.got:
			if len(r.Events) > 0 {
				events = append(events, r)
				continue
			}
			fmt.Println(show(r))
		case err := <-s.end:
			fmt.Println("  end:", err)
			return
		case <-time.After(quiet):
			return
		}
	}
}

// events merges responses until n events came: how history is cut into responses is not fixed.
func (s *stream) events(n int) {
	seen := 0
	last := int64(0)
	whole := true
	for seen < n {
		select {
		case r := <-s.got:
			if r.Created || r.Canceled {
				fmt.Println(show(r))
				continue
			}
			for i, e := range r.Events {
				if i == 0 && e.Kv.ModRevision == last {
					whole = false
				}
				last = e.Kv.ModRevision
				fmt.Printf("    id=%d %s %s prev=%s\n", r.WatchId, e.Type, kv(e.Kv), kv(e.PrevKv))
				seen++
			}
		case err := <-s.end:
			fmt.Println("  end:", err)
			return
		case <-time.After(3 * time.Second):
			fmt.Println("  TIMEOUT")
			return
		}
	}
	fmt.Println("  revisions whole:", whole)
}

const quiet = 400 * time.Millisecond

func step(name string) { fmt.Println("#", name) }

func main() {
	ep := os.Getenv("EP")
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{ep}, DialTimeout: 5 * time.Second})
	ck(err)
	conn, err := grpc.NewClient(ep, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	ck(err)
	wc := pb.NewWatchClient(conn)
	ctx := context.Background()
	put := func(k, v string) int64 {
		r, err := cli.Put(ctx, k, v)
		ck(err)
		return r.Header.Revision
	}
	del := func(k string, o ...clientv3.OpOption) {
		_, err := cli.Delete(ctx, k, o...)
		ck(err)
	}
	base = put("base", "x")

	step("ids, duplicates, validation")
	s := open(wc)
	s.create(&pb.WatchCreateRequest{Key: []byte("a")})
	s.create(&pb.WatchCreateRequest{Key: []byte("b"), WatchId: 2})
	s.create(&pb.WatchCreateRequest{Key: []byte("c")})
	s.create(&pb.WatchCreateRequest{Key: []byte("d")})
	s.create(&pb.WatchCreateRequest{Key: []byte("e"), WatchId: 2})
	s.create(&pb.WatchCreateRequest{Key: []byte("e"), WatchId: -1})
	s.create(&pb.WatchCreateRequest{Key: []byte("e"), WatchId: -1})
	s.create(&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("a")})
	s.create(&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("b"), WatchId: 2})
	s.create(&pb.WatchCreateRequest{Key: []byte("b"), StartRevision: -1})
	s.create(&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("a"), StartRevision: -1})
	s.create(&pb.WatchCreateRequest{Key: []byte("b"), WatchId: 2, StartRevision: -5})
	s.create(&pb.WatchCreateRequest{})
	s.create(&pb.WatchCreateRequest{Key: []byte("z"), RangeEnd: []byte{0}, Filters: []pb.WatchCreateRequest_FilterType{7}})
	s.create(&pb.WatchCreateRequest{RangeEnd: []byte{0}, WatchId: -9223372036854775808})
	ck(s.Send(&pb.WatchRequest{}))
	s.until(quiet)
	put("e", "to -1")
	put("zz", "from key")
	s.until(quiet)
	s.cancel(77)
	s.cancel(0)
	s.cancel(-9223372036854775808)
	s.create(&pb.WatchCreateRequest{Key: []byte("a"), WatchId: 0})
	s.create(&pb.WatchCreateRequest{Key: []byte("a"), WatchId: -9223372036854775808})
	s.until(quiet)
	put("a", "again")
	s.until(quiet)

	step("half-close keeps events")
	ck(s.CloseSend())
	put("a", "after half-close")
	s.until(quiet)
	s.stop()

	step("filters and prev_kv")
	s = open(wc)
	s.create(&pb.WatchCreateRequest{Key: []byte("f"), Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}, PrevKv: true})
	s.create(&pb.WatchCreateRequest{Key: []byte("f"), RangeEnd: []byte("g"), Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}, PrevKv: true, WatchId: 5})
	s.until(quiet)
	put("f", "1")
	put("f", "2")
	del("f")
	del("f")
	put("f", "3")
	s.until(quiet)
	s.stop()

	step("transactions are whole")
	s = open(wc)
	s.create(&pb.WatchCreateRequest{Key: []byte("t"), RangeEnd: []byte("u"), PrevKv: true})
	s.create(&pb.WatchCreateRequest{Key: []byte("t2"), WatchId: 9, PrevKv: true})
	s.until(quiet)
	_, err = cli.Txn(ctx).Then(clientv3.OpPut("t1", "a"), clientv3.OpPut("t2", "b"), clientv3.OpPut("t3", "c")).Commit()
	ck(err)
	_, err = cli.Txn(ctx).Then(clientv3.OpPut("t1", "d"), clientv3.OpDelete("t2"), clientv3.OpPut("x", "c")).Commit()
	ck(err)
	del("t", clientv3.WithPrefix())
	_, err = cli.Txn(ctx).Then(clientv3.OpGet("t1")).Commit()
	ck(err)
	s.until(quiet)
	s.stop()

	step("history and future")
	first := put("h1", "a")
	put("h2", "b")
	put("h1", "c")
	del("h2")
	last := put("h1", "d")
	s = open(wc)
	s.create(&pb.WatchCreateRequest{Key: []byte("h"), RangeEnd: []byte("i"), StartRevision: first, PrevKv: true})
	s.events(5)
	s.create(&pb.WatchCreateRequest{Key: []byte("h1"), StartRevision: first + 1, WatchId: 3})
	s.events(2)
	s.create(&pb.WatchCreateRequest{Key: []byte("h1"), StartRevision: last + 3, WatchId: 4})
	s.until(quiet)
	put("h1", "e")
	put("h1", "f")
	put("h1", "g")
	s.until(quiet)
	s.stop()

	step("progress")
	s = open(wc)
	s.progress()
	s.until(quiet)
	s.create(&pb.WatchCreateRequest{Key: []byte("p")})
	s.until(quiet)
	s.progress()
	s.until(quiet)
	put("q", "elsewhere")
	s.progress()
	s.until(quiet)
	s.create(&pb.WatchCreateRequest{Key: []byte("p"), StartRevision: last + 1000, WatchId: 6})
	s.until(quiet)
	s.progress()
	s.until(quiet)
	s.cancel(6)
	s.progress()
	s.until(quiet)
	s.stop()

	step("compaction")
	c1 := put("c", "1")
	put("c", "2")
	put("c", "3")
	c4 := put("c", "4")
	put("c", "5")
	put("cd", "1")
	del("cd")
	cd := put("other", "1")
	_, err = cli.Compact(ctx, c4, clientv3.WithCompactPhysical())
	ck(err)
	s = open(wc)
	s.create(&pb.WatchCreateRequest{Key: []byte("c"), StartRevision: c1})
	s.until(quiet)
	s.create(&pb.WatchCreateRequest{Key: []byte("c"), StartRevision: c4 - 1})
	s.until(quiet)
	s.create(&pb.WatchCreateRequest{Key: []byte("c"), StartRevision: c4, PrevKv: true, WatchId: 8})
	s.events(2)
	s.create(&pb.WatchCreateRequest{Key: []byte("p"), WatchId: 10})
	s.until(quiet)
	s.progress()
	s.create(&pb.WatchCreateRequest{Key: []byte("p"), WatchId: 1})
	s.until(quiet)
	s.cancel(0)
	s.until(quiet)
	s.cancel(1)
	s.until(quiet)
	s.progress()
	s.until(quiet)
	_, err = cli.Compact(ctx, cd, clientv3.WithCompactPhysical())
	ck(err)
	put("c", "6")
	s.until(quiet)
	s.stop()

	step("tombstone at the compact revision")
	put("tomb", "1")
	put("tomb", "2")
	dr, err := cli.Delete(ctx, "tomb")
	ck(err)
	put("after", "1")
	_, err = cli.Compact(ctx, dr.Header.Revision, clientv3.WithCompactPhysical())
	ck(err)
	s = open(wc)
	s.create(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte{0}, StartRevision: dr.Header.Revision, PrevKv: true})
	s.until(quiet)
	s.create(&pb.WatchCreateRequest{Key: []byte("tomb"), StartRevision: dr.Header.Revision, PrevKv: true})
	s.until(quiet)
	s.stop()

	step("fragments")
	big := strings.Repeat("x", 400_000)
	for i := 0; i < 8; i++ {
		put(fmt.Sprintf("big%d", i), big)
	}
	s = open(wc)
	s.create(&pb.WatchCreateRequest{Key: []byte("big"), RangeEnd: []byte("bih"), PrevKv: true, Fragment: true})
	s.create(&pb.WatchCreateRequest{Key: []byte("big"), RangeEnd: []byte("bih"), PrevKv: true})
	s.until(quiet)
	del("big", clientv3.WithPrefix())
	s.until(quiet)
	_, err = cli.Txn(ctx).Then(clientv3.OpPut("big1", big), clientv3.OpPut("big2", big), clientv3.OpPut("big3", big)).Commit()
	ck(err)
	s.until(quiet)
	_, err = cli.Txn(ctx).Then(clientv3.OpPut("big1", big), clientv3.OpPut("big2", big), clientv3.OpPut("big3", big)).Commit()
	ck(err)
	s.until(quiet)
	s.stop()

	step("put and delete of one key in a transaction")
	s = open(wc)
	s.create(&pb.WatchCreateRequest{Key: []byte("w"), RangeEnd: []byte("x"), PrevKv: true})
	s.until(quiet)
	now := put("w1", "1")
	_, err = cli.Txn(ctx).Then(clientv3.OpPut("w2", "2"), clientv3.OpDelete("w1")).Commit()
	ck(err)
	s.until(quiet)
	s.stop()

	step("many changes from history")
	for i := 0; i < 3000; i++ {
		put(fmt.Sprintf("w%d", i%7), fmt.Sprint(i))
	}
	s = open(wc)
	s.create(&pb.WatchCreateRequest{Key: []byte("w"), RangeEnd: []byte("x"), StartRevision: now + 1, PrevKv: true})
	s.create(&pb.WatchCreateRequest{Key: []byte("w3"), StartRevision: now + 2, WatchId: 3, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}})
	byID := map[int64]int{}
	sum := map[int64]int64{}
	for byID[0] < 3002 || byID[3] < 429 {
		select {
		case r := <-s.got:
			for _, e := range r.Events {
				byID[r.WatchId]++
				sum[r.WatchId] = sum[r.WatchId]*31 + e.Kv.ModRevision - base + int64(len(e.PrevKv.GetValue()))
			}
			continue
		case <-time.After(3 * time.Second):
			fmt.Println("  TIMEOUT")
		}
		break
	}
	fmt.Println("  ", byID, sum)
	s.stop()

	step("metadata: leader required")
	s = open(wc, "hasleader", "true")
	s.create(&pb.WatchCreateRequest{Key: []byte("a")})
	s.until(quiet)
	s.stop()
	s.until(quiet)
	fmt.Println("OK")
}
