// SPDX-License-Identifier: Apache-2.0 OR MIT

// backend PORT: answers /call/<shape>/<id>/<n> with <id>/<n>, after 20 ms for the shape "one" and after 1 to 20 ms else.
package main

import (
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	http.HandleFunc("/call/", func(w http.ResponseWriter, r *http.Request) {
		shape, call, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/call/"), "/")
		wait := 20 * time.Millisecond
		if !strings.HasPrefix(shape, "one") {
			wait = time.Millisecond + rand.N(19*time.Millisecond)
		}
		time.Sleep(wait)
		io.WriteString(w, call)
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
