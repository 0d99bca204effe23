// rafthttporacle is the rafthttp oracle with the etcd that is ours, whose raft messages are pointers
// that protobuf's own generator made. Its commands are those of
// quorate/oracle/rafthttp36/transport, and
//
//	flood ID N SIZE       N appends of one entry each, one Send per append
package main

import (
	"context"
	"io"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/raft/v3/raftpb"

	"quorate/oracle/rafthttp36/transport"
)

type recorder struct{ *transport.Recorder }

func (r recorder) Process(_ context.Context, m *raftpb.Message) error {
	bytes := 0
	for _, e := range m.Entries {
		bytes += len(e.Data)
	}
	return r.Take(m.GetFrom(), m.GetTo(), bytes, func() ([]byte, error) {
		return proto.MarshalOptions{Deterministic: true}.Marshal(m)
	})
}

func send(tr *rafthttp.Transport, encoded [][]byte) error {
	ms := make([]*raftpb.Message, len(encoded))
	for i, b := range encoded {
		ms[i] = new(raftpb.Message)
		if err := proto.Unmarshal(b, ms[i]); err != nil {
			return err
		}
	}
	tr.Send(ms)
	return nil
}

func sendSnapshot(tr *rafthttp.Transport, encoded []byte, file io.ReadCloser, size int64) error {
	m := new(raftpb.Message)
	if err := proto.Unmarshal(encoded, m); err != nil {
		return err
	}
	tr.SendSnapshot(snap.NewMessage(m, file, size))
	return nil
}

func flood(tr *rafthttp.Transport, args []string) error {
	to, err := types.IDFromString(args[0])
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	size, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	data := make([]byte, size)
	for i := range n {
		index := uint64(i)
		tr.Send([]*raftpb.Message{{
			Type: raftpb.MsgApp.Enum(), From: proto.Uint64(uint64(tr.ID)), To: proto.Uint64(uint64(to)),
			Term: proto.Uint64(2), LogTerm: proto.Uint64(2), Index: &index, Commit: &index,
			Entries: []*raftpb.Entry{{Term: proto.Uint64(2), Index: proto.Uint64(index + 1), Data: data}},
		}})
		// A queue of 4096 drops what does not fit.
		if i%1024 == 1023 {
			time.Sleep(3 * time.Millisecond)
		}
	}
	return nil
}

func main() {
	transport.Main(transport.Version{
		Raft:         func(r *transport.Recorder) rafthttp.Raft { return recorder{r} },
		Send:         send,
		SendSnapshot: sendSnapshot,
		More: map[string]func(*rafthttp.Transport, []string) error{
			"flood": flood,
		},
	})
}
