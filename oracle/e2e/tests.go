//go:build e2e

// Package e2e holds nothing: it names the packages of etcd's own end-to-end tests, so that go.mod
// and go.sum have what `go test -c -tags e2e` of them needs.
package e2e

import (
	_ "go.etcd.io/etcd/tests/v3/common"
	_ "go.etcd.io/etcd/tests/v3/e2e"
)
