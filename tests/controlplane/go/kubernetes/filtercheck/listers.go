package main

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	apitypes "k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/apps"
	"k8s.io/client-go/informers/core"
	"k8s.io/client-go/informers/internalinterfaces"
	"k8s.io/client-go/informers/storage"
	"k8s.io/client-go/tools/cache"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
)

func types(number int) apitypes.UID {
	return apitypes.UID("pod-" + strconv.Itoa(number))
}

// nodes is the snapshot of which the plugins read nodes and the pods on them.
type nodes struct {
	list   []*framework.NodeInfo
	byName map[string]*framework.NodeInfo
}

func (n *nodes) set(list []*framework.NodeInfo, byName map[string]*framework.NodeInfo) {
	n.list, n.byName = list, byName
}

// exchange puts another state of a node in the place of one that is there.
func (n *nodes) exchange(old, replacement *framework.NodeInfo) {
	n.list[slices.Index(n.list, old)] = replacement
	n.byName[replacement.Node().Name] = replacement
}

func (n *nodes) NodeInfos() fwk.NodeInfoLister           { return n }
func (n *nodes) StorageInfos() fwk.StorageInfoLister     { return n }
func (n *nodes) PodGroupStates() fwk.PodGroupStateLister { return nil }
func (n *nodes) List() ([]fwk.NodeInfo, error)           { return n.those(nil), nil }
func (n *nodes) HavePodsWithAffinityList() ([]fwk.NodeInfo, error) {
	return n.those(func(info *framework.NodeInfo) bool { return len(info.PodsWithAffinity) > 0 }), nil
}

func (n *nodes) HavePodsWithRequiredAntiAffinityList() ([]fwk.NodeInfo, error) {
	return n.those(func(info *framework.NodeInfo) bool { return len(info.PodsWithRequiredAntiAffinity) > 0 }), nil
}

func (n *nodes) Get(name string) (fwk.NodeInfo, error) {
	if info := n.byName[name]; info != nil {
		return info, nil
	}
	return nil, fmt.Errorf("there is no node %s", name)
}

func (n *nodes) IsPVCUsedByPods(key string) bool {
	for _, info := range n.list {
		if info.PVCRefCounts[key] > 0 {
			return true
		}
	}
	return false
}

func (n *nodes) those(wanted func(*framework.NodeInfo) bool) []fwk.NodeInfo {
	found := make([]fwk.NodeInfo, 0, len(n.list))
	for _, info := range n.list {
		if wanted == nil || wanted(info) {
			found = append(found, info)
		}
	}
	return found
}

// objects is an informer factory without an API server: its informers hold what was put into them, at once.
type objects struct {
	informers.SharedInformerFactory
	shelves map[reflect.Type]*shelf
}

func newObjects() *objects {
	return &objects{shelves: map[reflect.Type]*shelf{}}
}

// InformerFor is what every typed informer and lister of the factory rests on.
func (o *objects) InformerFor(
	object apiruntime.Object, _ internalinterfaces.NewInformerFunc,
) cache.SharedIndexInformer {
	return o.shelf(object)
}

func (o *objects) InformerName() *cache.InformerName { return nil }
func (o *objects) Core() core.Interface              { return core.New(o, metav1.NamespaceAll, nil) }
func (o *objects) Apps() apps.Interface              { return apps.New(o, metav1.NamespaceAll, nil) }
func (o *objects) Storage() storage.Interface        { return storage.New(o, metav1.NamespaceAll, nil) }

func (o *objects) shelf(object apiruntime.Object) *shelf {
	kind := reflect.TypeOf(object)
	if o.shelves[kind] == nil {
		indexers := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
		o.shelves[kind] = &shelf{indexer: cache.NewIndexer(cache.MetaNamespaceKeyFunc, indexers)}
	}
	return o.shelves[kind]
}

// set exchanges the objects for those of a cluster; namespaces that only pods name exist as well.
func (o *objects) set(given *cluster) error {
	namespaces := map[string]apiruntime.Object{}
	for _, pod := range given.Pods {
		namespaces[pod.Namespace] = &v1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: pod.Namespace, Labels: map[string]string{v1.LabelMetadataName: pod.Namespace},
		}}
	}
	for _, namespace := range given.Namespaces {
		namespaces[namespace.Name] = namespace
	}
	all := make([]apiruntime.Object, 0, len(namespaces))
	for _, namespace := range namespaces {
		all = append(all, namespace)
	}
	if err := o.shelf(&v1.Namespace{}).set(all); err != nil {
		return err
	}
	if err := o.shelf(&v1.PersistentVolume{}).set(untyped(given.Volumes)); err != nil {
		return err
	}
	if err := o.shelf(&v1.PersistentVolumeClaim{}).set(untyped(given.Claims)); err != nil {
		return err
	}
	return o.shelf(&v1.Node{}).set(untyped(given.Nodes))
}

func untyped[T apiruntime.Object](objects []T) []apiruntime.Object {
	found := make([]apiruntime.Object, 0, len(objects))
	for _, object := range objects {
		found = append(found, object)
	}
	return found
}

// shelf is an informer that tells its handlers before set returns.
type shelf struct {
	cache.SharedIndexInformer
	indexer  cache.Indexer
	handlers []cache.ResourceEventHandler
}

func (s *shelf) GetIndexer() cache.Indexer                 { return s.indexer }
func (s *shelf) GetStore() cache.Store                     { return s.indexer }
func (s *shelf) HasSynced() bool                           { return true }
func (s *shelf) AddIndexers(indexers cache.Indexers) error { return s.indexer.AddIndexers(indexers) }

func (s *shelf) AddEventHandler(
	handler cache.ResourceEventHandler,
) (cache.ResourceEventHandlerRegistration, error) {
	s.handlers = append(s.handlers, handler)
	return nil, nil
}

func (s *shelf) AddEventHandlerWithOptions(
	handler cache.ResourceEventHandler, _ cache.HandlerOptions,
) (cache.ResourceEventHandlerRegistration, error) {
	return s.AddEventHandler(handler)
}

func (s *shelf) set(objects []apiruntime.Object) error {
	for _, object := range s.indexer.List() {
		if err := s.indexer.Delete(object); err != nil {
			return err
		}
		for _, handler := range s.handlers {
			handler.OnDelete(object)
		}
	}
	for _, object := range objects {
		if err := s.indexer.Add(object); err != nil {
			return err
		}
		for _, handler := range s.handlers {
			handler.OnAdd(object, true)
		}
	}
	return nil
}
