// Command filtercheck asks kube-scheduler's own filters about clusters.
//
// It reads one cluster per line as JSON, {"nodes", "pods", "persistentVolumes", "persistentVolumeClaims",
// "namespaces", "check"}, with the objects as the API writes them. Each pod of "check" (indices into "pods"; without
// it all that have a node) is taken off its node and filtered alone against the rest, as if it had just been created.
// The answer is one line: a JSON list of {"pod", "node", "plugin", "reasons"}, one for each pod that its own node
// would not get. With "place", a list of {"pod", "nodes"}, pods without a node are first put, one after the other, on
// the first of the named nodes that passes; the answer is then a list of the nodes, "" where none did.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"k8s.io/klog/v2"
)

func main() {
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
	checker, err := newChecker(context.Background())
	if err == nil {
		err = answer(checker, os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "filtercheck: %v\n", err)
		os.Exit(1)
	}
}

// answer writes one line for each line that it reads, as soon as it has read it.
func answer(checker *checker, in io.Reader, out io.Writer) error {
	lines := bufio.NewReaderSize(in, 1<<20)
	for number := 1; ; number++ {
		line, err := lines.ReadBytes('\n')
		if len(line) > 1 {
			said, failure := checker.ask(line)
			if failure != nil {
				return fmt.Errorf("line %d: %w", number, failure)
			}
			encoded, failure := json.Marshal(said)
			if failure != nil {
				return failure
			}
			if _, failure := out.Write(append(encoded, '\n')); failure != nil {
				return failure
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
