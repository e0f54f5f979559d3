// Loads the settings of Datadog's exporter, from standard input as JSON, as the exporter would, and lets them check
// themselves. The exporter itself cannot be built: not all of its modules can be had.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/open-telemetry/opentelemetry-collector-contrib/pkg/datadog/config"
	"go.opentelemetry.io/collector/confmap"
)

func main() {
	if err := load(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func load() error {
	settings := map[string]any{}
	if err := json.NewDecoder(os.Stdin).Decode(&settings); err != nil {
		return err
	}
	loaded := config.CreateDefaultConfig()
	if err := confmap.NewFromStringMap(settings).Unmarshal(loaded); err != nil {
		return err
	}
	return confmap.Validate(loaded)
}
