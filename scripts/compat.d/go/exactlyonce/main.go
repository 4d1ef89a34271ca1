// exactlyonce copies a topic exactly once in transactions, writes the records to copy, and judges the copy.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const usage = `usage: exactlyonce --bootstrap HOST:PORT feed --ends N,N,... SOURCE
       exactlyonce --bootstrap HOST:PORT copy --id ID --ends N,N,... [--records N] SOURCE TARGET
       exactlyonce --bootstrap HOST:PORT check --group GROUP --ends N,N,... SOURCE TARGET
--ends says of each partition of SOURCE how many records it holds: feed writes what is missing of them.`

// A broker that is killed comes back soon: clients try often.
const retryEvery = 50 * time.Millisecond

func main() {
	bootstrap := flag.String("bootstrap", "", "HOST:PORT of a broker")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	if err := command(ctx, *bootstrap, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "exactlyonce:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, bootstrap string, words []string) error {
	if bootstrap == "" || len(words) == 0 {
		return errors.New(usage)
	}
	options := flag.NewFlagSet(words[0], flag.ContinueOnError)
	id := options.String("id", "", "transactional id, and group, of the copier")
	group := options.String("group", "", "the copier's group")
	ends := options.String("ends", "", "records of each partition of the source")
	records := options.Int("records", 20, "most records of a transaction")
	if err := options.Parse(words[1:]); err != nil {
		return err
	}
	until, err := numbers(*ends)
	if err != nil {
		return err
	}
	switch topics := options.Args(); {
	case words[0] == "feed" && len(topics) == 1:
		return feed(ctx, bootstrap, topics[0], until)
	case words[0] == "copy" && len(topics) == 2 && *id != "":
		return copyTopic(ctx, bootstrap, *id, topics[0], topics[1], until, *records)
	case words[0] == "check" && len(topics) == 2 && *group != "":
		return check(ctx, bootstrap, *group, topics[0], topics[1], until)
	}
	return errors.New(usage)
}

// numbers reads "3,4,5".
func numbers(text string) ([]int64, error) {
	var found []int64
	for _, word := range strings.Split(text, ",") {
		number, err := strconv.ParseInt(word, 10, 64)
		if err != nil || number < 0 {
			return nil, fmt.Errorf("--ends %q: a number for each partition, with commas", text)
		}
		found = append(found, number)
	}
	return found, nil
}

// keyOf names a record by its partition and its number there.
func keyOf(partition int32, number int64) string {
	return fmt.Sprintf("%d-%d", partition, number)
}

// valueOf is what a record of that key holds.
func valueOf(key string) string {
	sum := sha256.Sum256([]byte(key))
	return key + " " + hex.EncodeToString(sum[:])
}

// feed appends to each partition what it has too few of. A record's number is its offset.
func feed(ctx context.Context, bootstrap, topic string, until []int64) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap), kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RetryBackoffFn(func(int) time.Duration { return retryEvery }),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	ends, err := endsOf(ctx, client, topic)
	if err != nil {
		return err
	}
	var records []*kgo.Record
	for partition, end := range until {
		for number := ends[int32(partition)].high; number < end; number++ {
			key := keyOf(int32(partition), number)
			records = append(records, &kgo.Record{
				Partition: int32(partition), Key: []byte(key), Value: []byte(valueOf(key)),
			})
		}
	}
	for _, result := range client.ProduceSync(ctx, records...) {
		if result.Err != nil {
			return result.Err
		}
		if key := keyOf(result.Record.Partition, result.Record.Offset); key != string(result.Record.Key) {
			return fmt.Errorf("%s was stored at the offset of %s", result.Record.Key, key)
		}
	}
	return nil
}
