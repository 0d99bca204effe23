// rafthttp36oracle is the rafthttp oracle with etcd 3.6, whose raft messages are values that gogo
// generated. Its commands are those of quorate/oracle/rafthttp36/transport.
package main

import (
	"context"
	"io"

	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/raft/v3/raftpb"

	"quorate/oracle/rafthttp36/transport"
)

type recorder struct{ *transport.Recorder }

func (r recorder) Process(_ context.Context, m raftpb.Message) error {
	bytes := 0
	for _, e := range m.Entries {
		bytes += len(e.Data)
	}
	return r.Take(m.From, m.To, bytes, m.Marshal)
}

func send(tr *rafthttp.Transport, encoded [][]byte) error {
	ms := make([]raftpb.Message, len(encoded))
	for i, b := range encoded {
		if err := ms[i].Unmarshal(b); err != nil {
			return err
		}
	}
	tr.Send(ms)
	return nil
}

func sendSnapshot(tr *rafthttp.Transport, encoded []byte, file io.ReadCloser, size int64) error {
	var m raftpb.Message
	if err := m.Unmarshal(encoded); err != nil {
		return err
	}
	tr.SendSnapshot(*snap.NewMessage(m, file, size))
	return nil
}

func main() {
	transport.Main(transport.Version{
		Raft:         func(r *transport.Recorder) rafthttp.Raft { return recorder{r} },
		Send:         send,
		SendSnapshot: sendSnapshot,
	})
}
