// Package transport runs a rafthttp.Transport of etcd's with a raft that only records, driven by
// lines on stdin; what happens is printed. It is compiled with whichever etcd the program is of:
// raftpb's types, which differ, are left to the program.
//
//	addpeer ID URL... | addremote ID URL... | updatepeer ID URL... | removepeer ID
//	send HEX...           one Send of these raftpb.Messages
//	sendsnap HEX FILE     a merged snapshot: the message, then the file
//	removed ID            the member counts as removed from now on
//	count                 prints how many messages arrived, and their bytes, since the last count
//	quiet                 messages are counted only
//	active ID             prints whether the peer is active
//
// and what the program has more. Ids are hex. Printed: `listening URL`, `process HEX`,
// `unreachable ID`, `snapshot ID finish|failure`, `error TEXT`, `active true|false`,
// `count N BYTES`, `done` after each line of input.
package transport

import (
	"bufio"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	stats "go.etcd.io/etcd/server/v3/etcdserver/api/v2stats"
	"go.etcd.io/raft/v3"
)

var (
	mu  sync.Mutex
	out = bufio.NewWriter(os.Stdout)
)

func say(format string, args ...any) {
	mu.Lock()
	defer mu.Unlock()
	fmt.Fprintf(out, format+"\n", args...)
	out.Flush()
}

// Recorder is a raft that prints what it is told; all of one but Process.
type Recorder struct {
	id      uint64
	mu      sync.Mutex
	removed map[uint64]bool
	quiet   bool
	count   int
	bytes   int
}

// Take is told of a message that arrived, with the bytes of its entries' data. It checks sender and
// receiver as an etcd server does.
func (r *Recorder) Take(from, to uint64, bytes int, encode func() ([]byte, error)) error {
	if r.IsIDRemoved(from) {
		return errors.New("the sender was removed")
	}
	if to != r.id {
		return errors.New("the message is for somebody else")
	}
	r.mu.Lock()
	quiet := r.quiet
	r.count++
	r.bytes += bytes
	r.mu.Unlock()
	if quiet {
		return nil
	}
	b, err := encode()
	if err != nil {
		return err
	}
	say("process %s", hex.EncodeToString(b))
	return nil
}

func (r *Recorder) IsIDRemoved(id uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.removed[id]
}

func (r *Recorder) ReportUnreachable(id uint64) { say("unreachable %x", id) }

func (r *Recorder) ReportSnapshot(id uint64, status raft.SnapshotStatus) {
	if status == raft.SnapshotFinish {
		say("snapshot %x finish", id)
	} else {
		say("snapshot %x failure", id)
	}
}

func parseID(s string) types.ID {
	id, err := types.IDFromString(s)
	if err != nil {
		log.Fatalf("id %q: %v", s, err)
	}
	return id
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		log.Fatal(err)
	}
	return b
}

// Version is what differs between versions of etcd. An error ends the program.
type Version struct {
	// Raft is what the transport hands messages to; it hands them on to Take.
	Raft func(*Recorder) rafthttp.Raft
	// Send sends these messages at once.
	Send func(tr *rafthttp.Transport, encoded [][]byte) error
	// SendSnapshot sends a message and the file that belongs to it.
	SendSnapshot func(tr *rafthttp.Transport, encoded []byte, file io.ReadCloser, size int64) error
	// More are commands of this version alone, with what follows them.
	More map[string]func(tr *rafthttp.Transport, args []string) error
}

// Main is the program.
func Main(version Version) {
	id := flag.String("id", "1", "member")
	cluster := flag.String("cluster", "1", "cluster")
	listen := flag.String("listen", "127.0.0.1:0", "address")
	dir := flag.String("dir", "", "directory of snapshots")
	verbose := flag.Bool("v", false, "log to stderr")
	flag.Parse()

	lg := zap.NewNop()
	if *verbose {
		lg, _ = zap.NewDevelopment()
	}
	local := parseID(*id)
	rec := &Recorder{id: uint64(local), removed: map[uint64]bool{}}

	ln, err := rafthttp.NewListener(url.URL{Scheme: "http", Host: *listen}, nil)
	if err != nil {
		log.Fatal(err)
	}
	own := "http://" + ln.Addr().String()
	errorc := make(chan error, 16)
	tr := &rafthttp.Transport{
		Logger:      lg,
		DialTimeout: 2 * time.Second,
		ID:          local,
		URLs:        types.MustNewURLs([]string{own}),
		ClusterID:   parseID(*cluster),
		Raft:        version.Raft(rec),
		Snapshotter: snap.New(lg, *dir),
		ServerStats: stats.NewServerStats("", ""),
		LeaderStats: stats.NewLeaderStats(lg, local.String()),
		ErrorC:      errorc,
	}
	if err := tr.Start(); err != nil {
		log.Fatal(err)
	}
	go func() {
		for err := range errorc {
			say("error %v", err)
		}
	}()
	mux := http.NewServeMux()
	mux.HandleFunc("/", http.NotFound)
	mux.Handle(rafthttp.RaftPrefix, tr.Handler())
	mux.Handle(rafthttp.RaftPrefix+"/", tr.Handler())
	server := &http.Server{Handler: mux, ReadTimeout: 5 * time.Minute, ErrorLog: log.New(devNull{}, "", 0)}
	go server.Serve(ln)
	say("listening %s", own)

	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 64<<20)
	for in.Scan() {
		words := strings.Fields(in.Text())
		if len(words) == 0 {
			continue
		}
		switch command, args := words[0], words[1:]; command {
		case "addpeer":
			tr.AddPeer(parseID(args[0]), args[1:])
		case "addremote":
			tr.AddRemote(parseID(args[0]), args[1:])
		case "updatepeer":
			tr.UpdatePeer(parseID(args[0]), args[1:])
		case "removepeer":
			tr.RemovePeer(parseID(args[0]))
		case "send":
			var messages [][]byte
			for _, arg := range args {
				messages = append(messages, unhex(arg))
			}
			if err := version.Send(tr, messages); err != nil {
				log.Fatal(err)
			}
		case "sendsnap":
			f, err := os.Open(args[1])
			if err != nil {
				log.Fatal(err)
			}
			info, err := f.Stat()
			if err != nil {
				log.Fatal(err)
			}
			if err := version.SendSnapshot(tr, unhex(args[0]), f, info.Size()); err != nil {
				log.Fatal(err)
			}
		case "removed":
			rec.mu.Lock()
			rec.removed[uint64(parseID(args[0]))] = true
			rec.mu.Unlock()
		case "quiet":
			rec.mu.Lock()
			rec.quiet = true
			rec.mu.Unlock()
		case "count":
			rec.mu.Lock()
			say("count %d %d", rec.count, rec.bytes)
			rec.count, rec.bytes = 0, 0
			rec.mu.Unlock()
		case "active":
			say("active %v", !tr.ActiveSince(parseID(args[0])).IsZero())
		default:
			more, ok := version.More[command]
			if !ok {
				log.Fatalf("unknown command %q", command)
			}
			if err := more(tr, args); err != nil {
				log.Fatal(err)
			}
		}
		say("done")
	}
	tr.Stop()
	server.Close()
}

// devNull swallows what the HTTP server says of handlers that panic on purpose.
type devNull struct{}

func (devNull) Write(b []byte) (int, error) { return len(b), nil }
