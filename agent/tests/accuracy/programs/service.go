// SPDX-License-Identifier: Apache-2.0 OR MIT

// service serve PORT: answers as ../programs.rs says, with net/http and its own chunking.
// service call PORT PATH...: asks with the default client, on one connection.
// service pool PORT PATH...: asks with the same from several goroutines at once.
package main

import (
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const piece = "0123456789"

func main() {
	mode, address := os.Args[1], "127.0.0.1:"+os.Args[2]
	if mode == "serve" {
		log.Fatal(http.ListenAndServe(address, http.HandlerFunc(answer)))
	}
	if mode == "pool" {
		pool("http://"+address, os.Args[3:])
		return
	}
	for _, path := range os.Args[3:] {
		if err := call("http://" + address + path); err != nil {
			log.Fatal(err)
		}
	}
}

func answer(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	switch kind := strings.Split(r.URL.Path, "/")[1]; kind {
	case "204":
		w.WriteHeader(http.StatusNoContent)
	case "writes":
		w.Header().Set("Content-Length", strconv.Itoa(5*len(piece)))
		slowly(w)
	case "chunks":
		slowly(w)
	case "big":
		for range 16 {
			w.Write(make([]byte, 64<<10))
		}
	default:
		status, _ := strconv.Atoi(kind)
		w.WriteHeader(status)
		io.WriteString(w, piece)
	}
}

func slowly(w http.ResponseWriter) {
	for range 5 {
		time.Sleep(100 * time.Millisecond)
		io.WriteString(w, piece)
		w.(http.Flusher).Flush()
	}
}

func pool(base string, paths []string) {
	left := make(chan string, len(paths))
	for _, path := range paths {
		left <- path
	}
	close(left)
	var all sync.WaitGroup
	for range 4 {
		all.Add(1)
		go func() {
			defer all.Done()
			for path := range left {
				if err := call(base + path); err != nil {
					log.Fatal(err)
				}
			}
		}()
	}
	all.Wait()
}

func call(url string) error {
	response, err := http.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}
