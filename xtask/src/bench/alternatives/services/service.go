// SPDX-License-Identifier: Apache-2.0 OR MIT

// service PORT BACKEND: answers every request with what it gets from the backend; a goroutine per connection. With
// INSTRUMENTED set it is built as Go's instrumentation wants it: the handler and the client are wrapped.
package main

import (
	"context"
	"io"
	"log"
	"net/http"
	"os"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/trace"
)

func main() {
	var transport http.RoundTripper = &http.Transport{MaxIdleConnsPerHost: 64}
	handler := func(client *http.Client) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			call, _ := http.NewRequestWithContext(r.Context(), "GET", "http://127.0.0.1:"+os.Args[2]+"/stock", nil)
			response, err := client.Do(call)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			io.Copy(io.Discard, response.Body)
			response.Body.Close()
			io.WriteString(w, "ok\n")
		})
	}
	served := handler(&http.Client{Transport: transport})
	if os.Getenv("INSTRUMENTED") != "" {
		// Endpoint and batches come from the variables that all languages share.
		exporter, err := otlptracehttp.New(context.Background())
		if err != nil {
			log.Fatal(err)
		}
		otel.SetTracerProvider(trace.NewTracerProvider(trace.WithBatcher(exporter)))
		served = otelhttp.NewHandler(handler(&http.Client{Transport: otelhttp.NewTransport(transport)}), "GET /")
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], served))
}
