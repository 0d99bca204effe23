// h2spec shows which demands of RFC 9113 and RFC 7541 a server meets: one line per case, "pass",
// "fail" or "skip" and the case's number and text.
//
//	h2spec PORT SECONDS    the server on 127.0.0.1; how long a case waits for a reaction
package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
)

// isClosed says whether a case failed only because the server's close reached it as a reset, which
// is what the kernel makes of bytes that were sent behind the one that the server closed for. h2spec
// means to take that for a closed connection, but compares with an error that Go wraps by now.
func isClosed(err error) bool {
	if err == nil {
		return false
	}
	text := err.Error()
	if of, ok := err.(*spec.TestError); ok {
		text = of.Actual
		if !slices.Contains(of.Expected, spec.ExpectedConnectionClosed) {
			return false
		}
	}
	return strings.Contains(text, syscall.ECONNRESET.Error()) || strings.Contains(text, syscall.EPIPE.Error())
}

func show(out *os.File, group *spec.TestGroup) {
	for n, test := range group.Tests {
		verdict := "none"
		if result := test.Result; result != nil {
			switch {
			case result.Skipped:
				verdict = "skip"
			case result.Failed && !isClosed(result.Error):
				verdict = "fail"
			default:
				verdict = "pass"
			}
		}
		fmt.Fprintf(out, "%s %s/%d %s\n", verdict, group.ID(), n+1, test.Desc)
	}
	for _, part := range group.Groups {
		show(out, part)
	}
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: h2spec PORT SECONDS")
		os.Exit(2)
	}
	port, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	seconds, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	out := os.Stdout
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		panic(err)
	}
	os.Stdout = null // what the cases print while they run
	c := &config.Config{
		Host:         "127.0.0.1",
		Port:         port,
		Path:         "/",
		Timeout:      time.Duration(seconds) * time.Second,
		MaxHeaderLen: 4000,
		Strict:       true,
	}
	for _, group := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		group.Test(c)
		show(out, group)
	}
}
