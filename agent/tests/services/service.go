// SPDX-License-Identifier: Apache-2.0 OR MIT

// service PORT BACKEND: answers /a/<id> with what the default client gets for /b/<id>; a goroutine per connection.
package main

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
)

func main() {
	backend := "http://127.0.0.1:" + os.Args[2] + "/b/"
	http.HandleFunc("/a/", func(w http.ResponseWriter, r *http.Request) {
		if err := answer(w, r, backend+strings.TrimPrefix(r.URL.Path, "/a/")); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}

func answer(w http.ResponseWriter, r *http.Request, url string) error {
	posted, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	call, err := http.NewRequestWithContext(r.Context(), r.Method, url, bytes.NewReader(posted))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(call)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	w.WriteHeader(response.StatusCode)
	_, err = w.Write(body)
	return err
}
