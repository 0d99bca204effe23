// h2spec shows which demands of RFC 9113 and RFC 7541 a server meets: one line per case, "pass",
// "fail" or "skip" and the case's number and text.
//
//	h2spec PORT SECONDS    the server on 127.0.0.1; how long a case waits for a reaction
package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
)

func show(out *os.File, group *spec.TestGroup) {
	for n, test := range group.Tests {
		verdict := "none"
		if result := test.Result; result != nil {
			switch {
			case result.Skipped:
				verdict = "skip"
			case result.Failed:
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
