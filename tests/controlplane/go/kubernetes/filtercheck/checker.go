package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/names"
	"k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/metrics"
)

// needed are the default profile's filters, and the two plugins without which no profile is accepted. What is left
// out speaks about CSI drivers' limits, device claims and groups of pods, none of which stands in the input.
var needed = []string{
	names.PrioritySort, names.DefaultBinder,
	names.NodeUnschedulable, names.NodeName, names.TaintToleration, names.NodeAffinity, names.NodePorts,
	names.NodeResourcesFit, names.VolumeRestrictions, names.VolumeBinding, names.VolumeZone,
	names.PodTopologySpread, names.InterPodAffinity,
}

type cluster struct {
	Nodes      []*v1.Node                  `json:"nodes"`
	Pods       []*v1.Pod                   `json:"pods"`
	Volumes    []*v1.PersistentVolume      `json:"persistentVolumes"`
	Claims     []*v1.PersistentVolumeClaim `json:"persistentVolumeClaims"`
	Namespaces []*v1.Namespace             `json:"namespaces"`
	Check      *[]int                      `json:"check"`
	Place      []wish                      `json:"place"`
}

// wish is a pod without a node, by its index, and the nodes that it may get, the best first.
type wish struct {
	Pod   int      `json:"pod"`
	Nodes []string `json:"nodes"`
}

type refusal struct {
	Pod     string   `json:"pod"`
	Node    string   `json:"node"`
	Plugin  string   `json:"plugin"`
	Reasons []string `json:"reasons"`
}

// checker is one scheduling framework, of which the cluster below it is exchanged.
type checker struct {
	ctx       context.Context
	framework framework.Framework
	nodes     *nodes
	objects   *objects
}

func newChecker(ctx context.Context) (*checker, error) {
	metrics.Register()
	defaults, err := latest.Default()
	if err != nil {
		return nil, err
	}
	profile := defaults.Profiles[0]
	enabled := slices.DeleteFunc(slices.Clone(profile.Plugins.MultiPoint.Enabled), func(plugin config.Plugin) bool {
		return !slices.Contains(needed, plugin.Name)
	})
	if len(enabled) != len(needed) {
		return nil, fmt.Errorf("the default profile has %d of the %d plugins", len(enabled), len(needed))
	}
	profile.Plugins = profile.Plugins.DeepCopy()
	profile.Plugins.MultiPoint.Enabled = enabled
	c := &checker{ctx: ctx, nodes: &nodes{}, objects: newObjects()}
	c.framework, err = runtime.NewFramework(
		ctx, plugins.NewInTreeRegistry(), &profile,
		runtime.WithSnapshotSharedLister(c.nodes), runtime.WithInformerFactory(c.objects), runtime.WithParallelism(1),
	)
	return c, err
}

// ask reads a cluster and returns its refusals, or where its pods were placed.
func (c *checker) ask(line []byte) (any, error) {
	var given cluster
	if err := json.Unmarshal(line, &given); err != nil {
		return nil, err
	}
	for i, pod := range given.Pods {
		complete(pod, i)
	}
	if err := c.load(&given); err != nil {
		return nil, err
	}
	if given.Place != nil {
		return c.place(&given)
	}
	return c.check(&given)
}

// complete gives a pod what the API server would: a UID and a namespace.
func complete(pod *v1.Pod, number int) {
	if pod.Namespace == "" {
		pod.Namespace = metav1.NamespaceDefault
	}
	if pod.UID == "" {
		pod.UID = types(number)
	}
}

func (c *checker) load(given *cluster) error {
	infos := make(map[string]*framework.NodeInfo, len(given.Nodes))
	list := make([]*framework.NodeInfo, 0, len(given.Nodes))
	for _, node := range given.Nodes {
		if infos[node.Name] != nil {
			return fmt.Errorf("two nodes are called %s", node.Name)
		}
		info := framework.NewNodeInfo()
		info.SetNode(node)
		infos[node.Name] = info
		list = append(list, info)
	}
	for _, pod := range given.Pods {
		if pod.Spec.NodeName == "" {
			continue
		}
		info := infos[pod.Spec.NodeName]
		if info == nil {
			return fmt.Errorf("pod %s/%s is on %s, which is no node", pod.Namespace, pod.Name, pod.Spec.NodeName)
		}
		info.AddPod(pod)
	}
	c.nodes.set(list, infos)
	return c.objects.set(given)
}

func (c *checker) check(given *cluster) ([]refusal, error) {
	asked := given.Check
	if asked == nil {
		asked = &[]int{}
		for i, pod := range given.Pods {
			if pod.Spec.NodeName != "" {
				*asked = append(*asked, i)
			}
		}
	}
	found := []refusal{}
	for _, i := range *asked {
		if i < 0 || i >= len(given.Pods) {
			return nil, fmt.Errorf("there is no pod %d", i)
		}
		pod := given.Pods[i]
		info := c.nodes.byName[pod.Spec.NodeName]
		if info == nil {
			return nil, fmt.Errorf("pod %s/%s has no node", pod.Namespace, pod.Name)
		}
		rest := without(info, pod)
		c.nodes.exchange(info, rest)
		fresh := pod.DeepCopy()
		fresh.Spec.NodeName = ""
		state := framework.NewCycleState()
		status, only := c.prefilter(state, fresh)
		if status == nil {
			status = c.filter(state, fresh, rest, only)
		}
		c.nodes.exchange(rest, info)
		if status != nil {
			found = append(found, refusal{
				Pod: pod.Namespace + "/" + pod.Name, Node: info.Node().Name,
				Plugin: status.Plugin(), Reasons: status.Reasons(),
			})
		}
	}
	return found, nil
}

// without returns a node's other pods. NodeInfo.RemovePod would also forget a host port that another pod has too.
func without(info *framework.NodeInfo, pod *v1.Pod) *framework.NodeInfo {
	rest := framework.NewNodeInfo()
	rest.SetNode(info.Node())
	for _, other := range info.Pods {
		if other.GetPod() != pod {
			rest.AddPodInfo(other)
		}
	}
	return rest
}

func (c *checker) place(given *cluster) ([]string, error) {
	found := make([]string, 0, len(given.Place))
	for _, wish := range given.Place {
		if wish.Pod < 0 || wish.Pod >= len(given.Pods) || given.Pods[wish.Pod].Spec.NodeName != "" {
			return nil, fmt.Errorf("there is no pod %d without a node", wish.Pod)
		}
		pod := given.Pods[wish.Pod]
		state := framework.NewCycleState()
		status, only := c.prefilter(state, pod)
		got := ""
		for _, name := range wish.Nodes {
			info := c.nodes.byName[name]
			if info == nil {
				return nil, fmt.Errorf("%s is no node", name)
			}
			if status == nil && c.filter(state, pod, info, only) == nil {
				got = name
				pod.Spec.NodeName = name
				info.AddPod(pod)
				break
			}
		}
		found = append(found, got)
	}
	return found, nil
}

// prefilter returns why no node at all can get the pod, or nil and the nodes to which a plugin narrows it.
func (c *checker) prefilter(state fwk.CycleState, pod *v1.Pod) (*fwk.Status, *fwk.PreFilterResult) {
	only, status, _ := c.framework.RunPreFilterPlugins(c.ctx, state, pod)
	if !status.IsSuccess() {
		return status, nil
	}
	return nil, only
}

// filter returns why the node cannot get the pod, or nil.
func (c *checker) filter(
	state fwk.CycleState, pod *v1.Pod, info *framework.NodeInfo, only *fwk.PreFilterResult,
) *fwk.Status {
	if !only.AllNodes() && !only.NodeNames.Has(info.Node().Name) {
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "a PreFilter plugin leaves out the node").
			WithPlugin(names.NodeAffinity)
	}
	if status := c.framework.RunFilterPlugins(c.ctx, state, pod, info); !status.IsSuccess() {
		return status
	}
	return nil
}
