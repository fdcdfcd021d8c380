// Karpenter asks the scheduler of Karpenter, as it is, which nodes it would open for pending pods without any cluster:
// a request as JSON on standard input, the answer as JSON on standard output. request.py writes the one, answer.py reads
// the other; prices are whole nanodollars (1e-9 USD) per hour in both.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/log"

	v1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/controllers/provisioning/scheduling"
	"sigs.k8s.io/karpenter/pkg/controllers/state"
	"sigs.k8s.io/karpenter/pkg/events"
	"sigs.k8s.io/karpenter/pkg/operator/injection"
	"sigs.k8s.io/karpenter/pkg/operator/logging"
	"sigs.k8s.io/karpenter/pkg/operator/options"
	requirements "sigs.k8s.io/karpenter/pkg/scheduling"
)

const nanoUSD = 1e9

// request is everything that the scheduler is to know. Daemons are the pods that the DaemonSets put on every node that
// admits them.
type request struct {
	LimitSeconds float64       `json:"limit_seconds"`
	Pools        []pool        `json:"pools"`
	Pods         []*corev1.Pod `json:"pods"`
	Daemons      []*corev1.Pod `json:"daemons"`
}

// pool becomes a NodePool without limits; of several that admit a pod Karpenter takes the first, as by weight.
type pool struct {
	Name     string            `json:"name"`
	Labels   map[string]string `json:"labels"`
	Taints   []corev1.Taint    `json:"taints"`
	Machines []machine         `json:"machines"`
}

// machine is an instance type; what a node of it can allocate is its capacity, since nothing else is compared.
type machine struct {
	Name        string              `json:"name"`
	Arch        string              `json:"arch"`
	Allocatable corev1.ResourceList `json:"allocatable"`
	Offerings   []offering          `json:"offerings"`
}

type offering struct {
	Zone         string `json:"zone"`
	CapacityType string `json:"capacity_type"`
	Price        int64  `json:"price_nanousd_per_hour"`
}

// answer has one entry for each node and each pod without a place; Ended is false where the limit came first.
type answer struct {
	Ended    bool              `json:"ended"`
	Seconds  float64           `json:"seconds"`
	Nodes    []node            `json:"nodes"`
	Unplaced map[string]string `json:"unplaced"`
}

type node struct {
	Pool    string   `json:"pool"`
	Machine string   `json:"machine"`
	Options int      `json:"machines_left"`
	Pods    []string `json:"pods"`
	offering
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	log.SetLogger(logging.NopLogger)
	var asked request
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		return fmt.Errorf("the request is no JSON: %w", err)
	}
	said, err := solve(asked)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(said)
}

// solve sets everything up as Karpenter's provisioner does for one round over all pending pods. Preferences are ignored,
// since here the cost alone counts.
func solve(asked request) (*answer, error) {
	ctx := options.ToContext(injection.WithControllerName(context.Background(), "provisioner"), &options.Options{
		PreferencePolicy:  options.PreferencePolicyIgnore,
		MinValuesPolicy:   options.MinValuesPolicyStrict,
		IgnoreDRARequests: true,
		FeatureGates:      options.DefaultFeatureGates(),
	})
	for index, pod := range asked.Pods {
		pod.UID = types.UID(fmt.Sprintf("pod-%d", index)) // the scheduler keeps what it knows of a pod by this
	}
	var pools []*v1.NodePool
	sold := map[string][]*cloudprovider.InstanceType{}
	for _, given := range asked.Pools {
		pools = append(pools, nodePool(given))
		for _, item := range given.Machines {
			sold[given.Name] = append(sold[given.Name], instanceType(item))
		}
	}
	how := []scheduling.Options{
		scheduling.DisableReservedCapacityFallback,
		scheduling.IgnorePreferences,
		scheduling.MinValuesPolicy(options.MinValuesPolicyStrict),
		scheduling.NumConcurrentReconciles(runtime.GOMAXPROCS(0)),
	}
	client, now := fake.NewClientBuilder().Build(), &clock.RealClock{}
	cluster := state.NewCluster(now, client, nil)
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, time.Duration(asked.LimitSeconds*float64(time.Second)))
	defer cancel()
	topology, err := scheduling.NewTopology(limited, client, cluster, nil, pools, sold, asked.Pods, how...)
	if err != nil {
		return nil, fmt.Errorf("no topology: %w", err)
	}
	recorder := events.NewRecorder(&record.FakeRecorder{})
	scheduler := scheduling.NewScheduler(
		limited, client, pools, cluster, nil, topology, sold, asked.Daemons, recorder, now, nil, nil, how...,
	)
	results, err := scheduler.Solve(limited, asked.Pods)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("no schedule: %w", err)
	}
	said := &answer{Ended: err == nil, Seconds: time.Since(began).Seconds(), Unplaced: map[string]string{}}
	for pod, reason := range results.PodErrors {
		said.Unplaced[pod.Name] = reason.Error()
	}
	for _, claim := range results.TruncateInstanceTypes(ctx, scheduling.MaxInstanceTypes).NewNodeClaims {
		said.Nodes = append(said.Nodes, launched(claim))
	}
	return said, nil
}

func nodePool(given pool) *v1.NodePool {
	made := &v1.NodePool{ObjectMeta: metav1.ObjectMeta{Name: given.Name, UID: types.UID(given.Name)}}
	made.Spec.Template.Labels = given.Labels
	made.Spec.Template.Spec.Taints = given.Taints
	made.Spec.Template.Spec.NodeClassRef = &v1.NodeClassReference{
		Group: "kinema.example", Kind: "NodeClass", Name: "default",
	}
	return made
}

func instanceType(given machine) *cloudprovider.InstanceType {
	found := cloudprovider.Offerings{}
	zones, capacityTypes := []string{}, []string{}
	for _, item := range given.Offerings {
		zones, capacityTypes = append(zones, item.Zone), append(capacityTypes, item.CapacityType)
		found = append(found, &cloudprovider.Offering{
			Available: true,
			Price:     float64(item.Price) / nanoUSD,
			Requirements: requirements.NewLabelRequirements(map[string]string{
				corev1.LabelTopologyZone: item.Zone, v1.CapacityTypeLabelKey: item.CapacityType,
			}),
		})
	}
	in := func(key string, values ...string) *requirements.Requirement {
		return requirements.NewRequirement(key, corev1.NodeSelectorOpIn, values...)
	}
	return &cloudprovider.InstanceType{
		Name: given.Name,
		Requirements: requirements.NewRequirements(
			in(corev1.LabelInstanceTypeStable, given.Name),
			in(corev1.LabelArchStable, given.Arch),
			in(corev1.LabelOSStable, string(corev1.Linux)),
			in(corev1.LabelTopologyZone, zones...),
			in(v1.CapacityTypeLabelKey, capacityTypes...),
		),
		Offerings: found,
		Capacity:  given.Allocatable,
		Overhead:  &cloudprovider.InstanceTypeOverhead{},
	}
}

// launched returns the node as a cloud would make it from the claim: of the machines left the cheapest offering that the
// claim's requirements admit.
func launched(claim *scheduling.NodeClaim) node {
	made := node{Pool: claim.NodePoolName, Options: len(claim.InstanceTypeOptions)}
	made.Price = math.MaxInt64
	for _, kind := range claim.InstanceTypeOptions {
		for _, item := range kind.Offerings.Available().Compatible(claim.Requirements) {
			if price := int64(math.Round(item.Price * nanoUSD)); price < made.Price {
				made.Machine = kind.Name
				made.offering = offering{Zone: item.Zone(), CapacityType: item.CapacityType(), Price: price}
			}
		}
	}
	for _, pod := range claim.Pods {
		made.Pods = append(made.Pods, pod.Name)
	}
	slices.Sort(made.Pods)
	return made
}
