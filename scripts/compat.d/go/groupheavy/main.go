// groupheavy puts a consumer group under stress: members join, leave and vanish while records come in. Every record must
// be delivered, a partition's records in order, and none again once its commit was acknowledged.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	partitions   = 12
	records      = 20_000
	producing    = 10 * time.Second
	limit        = 90 * time.Second
	sessionLimit = 6 * time.Second
)

// balancers are those of the classic protocol, and the broker's own, which is that of the consumer protocol.
var balancers = map[string][]kgo.GroupOpt{
	"cooperative": {kgo.Balancers(kgo.CooperativeStickyBalancer())},
	"range":       {kgo.Balancers(kgo.RangeBalancer())},
	"consumer":    {kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.ServerSideBalancer()},
}

// ledger is what the members saw and what the broker said is committed.
type ledger struct {
	lock      sync.Mutex
	seen      []int
	distinct  int
	committed [partitions]int64
	wrong     error
	all       chan struct{}
}

// deliver notes a record; the first broken promise is kept.
func (l *ledger) deliver(record *kgo.Record) {
	l.lock.Lock()
	defer l.lock.Unlock()
	number, err := strconv.Atoi(string(record.Value))
	if err != nil || number < 0 || number >= records {
		l.fail("partition %d offset %d holds %q", record.Partition, record.Offset, record.Value)
		return
	}
	if record.Offset < l.committed[record.Partition] {
		l.fail("partition %d: offset %d delivered again after a commit of %d",
			record.Partition, record.Offset, l.committed[record.Partition])
	}
	if l.seen[number]++; l.seen[number] == 1 {
		if l.distinct++; l.distinct == records {
			close(l.all)
		}
	}
}

func (l *ledger) fail(format string, values ...any) {
	if l.wrong == nil {
		l.wrong = fmt.Errorf(format, values...)
	}
}

func (l *ledger) commit(offsets map[int32]kgo.EpochOffset) {
	l.lock.Lock()
	defer l.lock.Unlock()
	for partition, offset := range offsets {
		l.committed[partition] = max(l.committed[partition], offset.Offset)
	}
}

type stress struct {
	bootstrap, topic, group string
	balancer                []kgo.GroupOpt
	ledger                  *ledger
	members                 sync.WaitGroup
}

// member consumes until its context ends, commits what each poll gave before it lets a rebalance happen, and then leaves;
// with an instance id it goes without a word, and the broker must notice by itself.
func (s *stress) member(ctx context.Context, instance string) error {
	options := []kgo.Opt{
		kgo.SeedBrokers(s.bootstrap), kgo.ConsumerGroup(s.group), kgo.ConsumeTopics(s.topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(sessionLimit), kgo.HeartbeatInterval(500 * time.Millisecond),
	}
	for _, option := range s.balancer {
		options = append(options, option)
	}
	if instance != "" {
		options = append(options, kgo.InstanceID(instance))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	s.members.Add(1)
	go func() {
		defer s.members.Done()
		defer client.CloseAllowingRebalance()
		for ctx.Err() == nil {
			fetches := client.PollRecords(ctx, 500)
			fetches.EachRecord(s.ledger.deliver)
			if fetches.NumRecords() > 0 {
				uncommitted := client.UncommittedOffsets()[s.topic]
				// A member that is told to stop still commits what it delivered.
				if err := client.CommitUncommittedOffsets(context.WithoutCancel(ctx)); err == nil {
					s.ledger.commit(uncommitted)
				}
			}
			client.AllowRebalance()
		}
	}()
	return nil
}

func (s *stress) produce(ctx context.Context) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(s.bootstrap), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.DefaultProduceTopic(s.topic),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	var failed error
	var lock sync.Mutex
	const slices = 100
	for slice := range slices {
		for number := slice * records / slices; number < (slice+1)*records/slices; number++ {
			text := strconv.Itoa(number)
			client.Produce(ctx, &kgo.Record{Key: []byte(text), Value: []byte(text)}, func(_ *kgo.Record, err error) {
				lock.Lock()
				defer lock.Unlock()
				failed = errors.Join(failed, err)
			})
		}
		time.Sleep(producing / slices)
	}
	if err := client.Flush(ctx); err != nil {
		return err
	}
	return failed
}

// churn lets members come and go while records are produced.
func (s *stress) churn(ctx context.Context) error {
	var stops []context.CancelFunc
	for number := range 7 {
		own, stop := context.WithCancel(ctx)
		stops = append(stops, stop)
		instance := ""
		if number == 2 {
			instance = "vanishes"
		}
		if err := s.member(own, instance); err != nil {
			return err
		}
		if number >= 2 {
			time.Sleep(time.Second)
		}
		switch number {
		case 4: // one leaves
			stops[0]()
		case 5: // one vanishes: only its session's end frees its partitions
			stops[2]()
		case 6: // two leave at once
			stops[3]()
			stops[4]()
		}
	}
	return nil
}

func (s *stress) run() error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(s.bootstrap))
	if err != nil {
		return err
	}
	admin := kadm.NewClient(client)
	defer admin.Close()
	if _, err := admin.CreateTopic(ctx, partitions, 1, nil, s.topic); err != nil {
		return err
	}
	produced := make(chan error, 1)
	go func() { produced <- s.produce(ctx) }()
	members, stop := context.WithCancel(ctx)
	defer stop()
	if err := s.churn(members); err != nil {
		return err
	}
	if err := <-produced; err != nil {
		return err
	}
	select {
	case <-s.ledger.all:
	case <-ctx.Done():
	}
	// What was delivered last is being committed.
	time.Sleep(500 * time.Millisecond)
	stop()
	s.members.Wait()
	return s.judge(admin)
}

func (s *stress) judge(admin *kadm.Client) error {
	if s.ledger.wrong != nil {
		return s.ledger.wrong
	}
	if s.ledger.distinct != records {
		return fmt.Errorf("%d of %d records delivered", s.ledger.distinct, records)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ends, err := admin.ListEndOffsets(ctx, s.topic)
	if err != nil {
		return err
	}
	committed, err := admin.FetchOffsets(ctx, s.group)
	if err != nil {
		return err
	}
	for partition := range int32(partitions) {
		end, _ := ends.Lookup(s.topic, partition)
		offset, _ := committed.Lookup(s.topic, partition)
		if end.Offset != offset.At {
			return fmt.Errorf("partition %d: committed %d, end %d", partition, offset.At, end.Offset)
		}
	}
	again := 0
	for _, times := range s.ledger.seen {
		again += times - 1
	}
	fmt.Printf("%d records, %d of them delivered more than once before their commit\n", records, again)
	return nil
}

func main() {
	bootstrap := flag.String("bootstrap", "", "HOST:PORT")
	topic := flag.String("topic", "", "a topic to create")
	balancer := flag.String("balancer", "cooperative", "cooperative, range or consumer")
	flag.Parse()
	stress := &stress{
		bootstrap: *bootstrap, topic: *topic, group: *topic + "-group", balancer: balancers[*balancer],
		ledger: &ledger{seen: make([]int, records), all: make(chan struct{})},
	}
	if err := stress.run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
