// SPDX-License-Identifier: Apache-2.0 OR MIT

// service PORT BACKEND STYLE: net/http on both sides.
// default: the handler's goroutine makes the call. goroutine: it starts a goroutine for each call. left: the same, and one more
// that nobody waits for calls after the answer. workers: sixteen goroutines that are older than the request take calls from a
// channel. tasks: four that take pointers to calls from a queue, for handlers that wait no longer than their requests. lazy: a handler
// that finds no worker idle starts one, which then works for all.
package main

import (
	"context"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

var (
	backend = "http://127.0.0.1:" + os.Args[2]
	pooled  = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	fresh   = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	jobs    = make(chan job)
	tasks   = make(chan *task, 1024)
)

// A call to be made, and where its answer is waited for.
type job struct {
	url    string
	client *http.Client
	answer chan string
}

// The same, as long as somebody wants it.
type task struct {
	job
	wanted context.Context
}

func (t *task) run() {
	answer := get(t.client, t.url)
	select {
	case t.answer <- answer:
	case <-t.wanted.Done():
	}
}

func runTasks() {
	for task := range tasks {
		task.run()
	}
}

func runJobs(first job) {
	first.answer <- get(first.client, first.url)
	for job := range jobs {
		job.answer <- get(job.client, job.url)
	}
}

func main() {
	style := os.Args[3]
	if style == "workers" {
		for range 16 {
			go func() {
				for job := range jobs {
					job.answer <- get(job.client, job.url)
				}
			}()
		}
	}
	if style == "tasks" {
		for range 4 {
			go runTasks()
		}
	}
	http.HandleFunc("/work/", func(w http.ResponseWriter, r *http.Request) {
		shape, id, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/work/"), "/")
		if style == "left" {
			defer func() {
				go func() {
					time.Sleep(5 * time.Millisecond)
					get(pooled, backend+"/call/left/-/0")
				}()
			}()
		}
		io.WriteString(w, strings.Join(work(r.Context(), style, shape, id), " "))
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}

func work(wanted context.Context, style, shape, id string) []string {
	client := pooled
	if shape == "fresh" {
		client = fresh
	}
	start := func(n int) chan string {
		call := job{backend + "/call/" + shape + "/" + id + "/" + strconv.Itoa(n), client, make(chan string, 1)}
		switch style {
		case "default":
			call.answer <- get(call.client, call.url)
		case "goroutine", "left":
			go func() { call.answer <- get(call.client, call.url) }()
		case "workers":
			jobs <- call
		case "tasks":
			tasks <- &task{call, wanted}
		case "lazy":
			select {
			case jobs <- call:
			default:
				go runJobs(call)
			}
		}
		return call.answer
	}
	wait := func(answer chan string) string {
		if style != "tasks" {
			return <-answer
		}
		select {
		case text := <-answer:
			return text
		case <-wanted.Done():
			return wanted.Err().Error()
		}
	}
	pause(shape)
	defer pause(shape)
	switch shape {
	case "one":
		return []string{wait(start(0))}
	case "parallel":
		first, second := start(0), start(1)
		return []string{wait(first), wait(second)}
	default:
		first := wait(start(0))
		pause(shape)
		return []string{first, wait(start(1))}
	}
}

func get(client *http.Client, url string) string {
	answer, err := client.Get(url)
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

func pause(shape string) {
	if shape == "one" {
		time.Sleep(3 * time.Millisecond)
		return
	}
	time.Sleep(time.Millisecond + rand.N(4*time.Millisecond))
}
