// Package contract is the command line that all client programs share; README.md in the folder above describes it.
package contract

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// File is one topic and the file whose lines go to it.
type File struct{ Topic, Path string }

// Client is what a library has to offer.
type Client interface {
	Produce(codec string, idempotent bool, files []File) error
	Consume(group string, topics []string, output *Output) error
	Offsets(topic string, timeMs int64) (map[int32]int64, error)
	Create(topic string, partitions int32, config map[string]string) error
	Describe(topic string) (*Description, error)
	Delete(topic string) error
}

// Transactor is a client with transactions. Each piece of a file is aborted first, then committed.
type Transactor interface {
	Transact(id string, each func(transaction func(topic string, values [][]byte, commit bool) error) error) error
}

// transactionRecords is how many lines a transaction has at most.
const transactionRecords = 200

func transactions(files []File, transaction func(topic string, values [][]byte, commit bool) error) error {
	for _, file := range files {
		var values [][]byte
		err := Lines(file.Path, func(line []byte) error {
			values = append(values, line)
			return nil
		})
		if err != nil {
			return err
		}
		for piece := range slices.Chunk(values, transactionRecords) {
			var wrong [][]byte
			for _, value := range piece {
				wrong = append(wrong, append([]byte("aborted "), value...))
			}
			if err := transaction(file.Topic, wrong, false); err != nil {
				return err
			}
			if err := transaction(file.Topic, piece, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// Description is a topic's shape.
type Description struct {
	Partitions int               `json:"partitions"`
	Config     map[string]string `json:"config"`
}

// Deadline bounds each command.
const Deadline = 60 * time.Second

// Output is what was read, a file per partition, and the position after it. Full once it holds Count records.
type Output struct {
	Folder    string
	Committed bool // read only what is committed
	Count     int
	Read      int
	Positions map[string]map[int32]int64
	files     map[string]*bufio.Writer
	closers   []io.Closer
}

// Full says whether everything asked for was read.
func (o *Output) Full() bool { return o.Read >= o.Count }

// Add appends one record, unless the output is full; then it reports false.
func (o *Output) Add(topic string, partition int32, offset int64, value []byte) (bool, error) {
	if o.Full() {
		return false, nil
	}
	name := fmt.Sprintf("%s/%s-%d", o.Folder, topic, partition)
	writer := o.files[name]
	if writer == nil {
		file, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return false, err
		}
		writer = bufio.NewWriter(file)
		o.files[name] = writer
		o.closers = append(o.closers, file)
	}
	if o.Positions[topic] == nil {
		o.Positions[topic] = map[int32]int64{}
	}
	o.Positions[topic][partition] = offset + 1
	o.Read++
	if _, err := writer.Write(value); err != nil {
		return false, err
	}
	return true, writer.WriteByte('\n')
}

func (o *Output) close() error {
	for _, writer := range o.files {
		if err := writer.Flush(); err != nil {
			return err
		}
	}
	for _, closer := range o.closers {
		if err := closer.Close(); err != nil {
			return err
		}
	}
	if !o.Full() {
		return fmt.Errorf("read %d of %d records in time", o.Read, o.Count)
	}
	return nil
}

// Lines calls each with every line of a file, without its line feed.
func Lines(path string, each func(line []byte) error) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(content), "\n"), "\n") {
		if err := each([]byte(line)); err != nil {
			return err
		}
	}
	return nil
}

// Main runs the command line with a client of the given broker.
func Main(connect func(bootstrap string) (Client, error)) {
	if err := run(connect); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(connect func(bootstrap string) (Client, error)) error {
	bootstrap := flag.String("bootstrap", "", "HOST:PORT")
	flag.Parse()
	if flag.NArg() == 0 {
		return errors.New("no command")
	}
	client, err := connect(*bootstrap)
	if err != nil {
		return err
	}
	return command(client, flag.Arg(0), flag.Args()[1:])
}

func command(client Client, name string, words []string) error {
	flags := flag.NewFlagSet(name, flag.ExitOnError)
	codec := flags.String("codec", "none", "")
	idempotent := flags.Bool("idempotent", false, "")
	group := flags.String("group", "", "")
	committed := flags.Bool("committed", false, "")
	id := flags.String("id", "", "")
	count := flags.Int("count", 0, "")
	timeMs := flags.Int64("time", 0, "")
	partitions := flags.Int("partitions", 1, "")
	config := map[string]string{}
	flags.Func("config", "", func(pair string) error {
		key, value, _ := strings.Cut(pair, "=")
		config[key] = value
		return nil
	})
	if err := flags.Parse(words); err != nil {
		return err
	}
	words = flags.Args()
	if len(words) == 0 || (name == "consume" && len(words) < 2) {
		return errors.New("too few arguments")
	}
	switch name {
	case "produce", "transact":
		var files []File
		for _, pair := range words {
			topic, path, _ := strings.Cut(pair, "=")
			files = append(files, File{topic, path})
		}
		if name == "produce" {
			return client.Produce(*codec, *idempotent, files)
		}
		transactor, ok := client.(Transactor)
		if !ok {
			return errors.New("no transactions")
		}
		return transactor.Transact(*id, func(transaction func(string, [][]byte, bool) error) error {
			return transactions(files, transaction)
		})
	case "consume":
		output := &Output{
			Folder: words[0], Count: *count, Committed: *committed,
			Positions: map[string]map[int32]int64{}, files: map[string]*bufio.Writer{},
		}
		if err := client.Consume(*group, words[1:], output); err != nil {
			return err
		}
		return output.close()
	case "offsets":
		return answer(client.Offsets(words[0], *timeMs))
	case "create":
		return client.Create(words[0], int32(*partitions), config)
	case "describe":
		return answer(client.Describe(words[0]))
	case "delete":
		return client.Delete(words[0])
	}
	return fmt.Errorf("no command %s", name)
}

func answer[T any](value T, err error) error {
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(value)
}
