// Echo is the least that an extender can do in Go: it reads the node names of a filter call and sends them back.
// The standard library alone; the pod is skipped, as ours skips what it does not use.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
)

type arguments struct {
	Pod       json.RawMessage
	NodeNames *[]string
}

type result struct {
	NodeNames *[]string
}

func filter(answer http.ResponseWriter, request *http.Request) {
	var sent arguments
	if err := json.NewDecoder(request.Body).Decode(&sent); err != nil {
		http.Error(answer, err.Error(), http.StatusBadRequest)
		return
	}
	answer.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(answer).Encode(result{NodeNames: sent.NodeNames}); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("http://%s\n", listener.Addr())
	http.HandleFunc("/filter", filter)
	fmt.Fprintln(os.Stderr, http.Serve(listener, nil))
	os.Exit(1)
}
