// gofail shows what etcd's failpoint runtime makes of terms and requests.
//
//	gofail terms            per line of stdin (a Go string literal): what setting it answers, then six
//	                        evaluations of it and how often it counted
//	gofail serve NAME...    with GOFAIL_HTTP set: serves these failpoints until stdin ends
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"

	"go.etcd.io/gofail/runtime"
)

// eval passes the failpoint once. A crash is a runtime error, not a panic that was asked for.
func eval(fp *runtime.Failpoint) (text string) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case string:
			text = "panic " + r
		default:
			text = "crash"
		}
	}()
	v, err := fp.Acquire()
	if err != nil {
		return "nothing"
	}
	return fmt.Sprintf("%T %v", v, v)
}

func enable(terms string) (text string) {
	defer func() {
		if recover() != nil {
			text = "crash"
		}
	}()
	if err := runtime.Enable("point", terms); err != nil {
		return err.Error()
	}
	return "set"
}

func terms() {
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		panic(err)
	}
	os.Stdout = null // what the runtime prints
	fp := runtime.NewFailpoint("point")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		text, err := strconv.Unquote(in.Text())
		if err != nil {
			panic(err)
		}
		said := enable(text)
		fmt.Fprintf(out, "%s", said)
		if said == "set" {
			for range 6 {
				fmt.Fprintf(out, "; %s", eval(fp))
			}
			_, count, _ := runtime.Status("point")
			fmt.Fprintf(out, "; %d", count)
		}
		fmt.Fprintln(out)
	}
}

func main() {
	switch os.Args[1] {
	case "terms":
		terms()
	case "serve":
		for _, name := range os.Args[2:] {
			runtime.NewFailpoint(name)
		}
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin)
	}
}
