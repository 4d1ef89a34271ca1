import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.MessageProperties;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

/**
 * One publisher of persistent messages that learns in one of five ways that the broker has them. Prints the messages
 * confirmed or committed in each second, until it is stopped.
 *
 * <p>Usage: {@code java Confirms.java URI QUEUE BYTES single|batch|async|tx-message|tx-batch COUNT}, where COUNT is the size of a
 * batch or of the window. PerfTest has single and windowed confirms and transactions, but no batch that is waited for as one.
 */
public class Confirms {
    private static final long CONFIRM_LIMIT_MS = 30_000;

    private final Channel channel;
    private final String queue;
    private final byte[] body;
    private final int count;
    private final AtomicLong done = new AtomicLong();

    private Confirms(Channel channel, String queue, int bytes, int count) {
        this.channel = channel;
        this.queue = queue;
        this.body = new byte[bytes];
        this.count = count;
    }

    private void publish() throws Exception {
        channel.basicPublish("", queue, MessageProperties.PERSISTENT_BASIC, body);
    }

    private void publish(int times) throws Exception {
        for (int i = 0; i < times; i++) {
            publish();
        }
    }

    /** Publishes some messages and waits for all of them. */
    private void confirmed(int times) throws Exception {
        channel.confirmSelect();
        while (true) {
            publish(times);
            channel.waitForConfirmsOrDie(CONFIRM_LIMIT_MS);
            done.addAndGet(times);
        }
    }

    /** Publishes some messages in a transaction. */
    private void committed(int times) throws Exception {
        channel.txSelect();
        while (true) {
            publish(times);
            channel.txCommit();
            done.addAndGet(times);
        }
    }

    /** Publishes on and on, with so many messages unconfirmed at most. */
    private void windowed() throws Exception {
        channel.confirmSelect();
        Semaphore window = new Semaphore(count);
        AtomicLong last = new AtomicLong();
        channel.addConfirmListener(
                (tag, multiple) -> {
                    long before = last.get();
                    int freed = multiple ? (int) (tag - before) : 1;
                    last.set(multiple ? tag : before + 1);
                    done.addAndGet(freed);
                    window.release(freed);
                },
                (tag, multiple) -> {
                    System.err.println("refused: " + tag);
                    System.exit(1);
                });
        while (true) {
            if (!window.tryAcquire(CONFIRM_LIMIT_MS, TimeUnit.MILLISECONDS)) {
                throw new IllegalStateException("no confirm came");
            }
            publish();
        }
    }

    private void run(String mode) throws Exception {
        switch (mode) {
            case "single" -> confirmed(1);
            case "batch" -> confirmed(count);
            case "async" -> windowed();
            case "tx-message" -> committed(1);
            case "tx-batch" -> committed(count);
            default -> throw new IllegalArgumentException(mode);
        }
    }

    private void report() {
        long before = 0;
        long at = System.nanoTime();
        while (true) {
            try {
                Thread.sleep(1000);
            } catch (InterruptedException end) {
                return;
            }
            long now = System.nanoTime();
            long total = done.get();
            System.out.printf("confirmed: %.0f msg/s%n", (total - before) * 1e9 / (now - at));
            System.out.flush();
            before = total;
            at = now;
        }
    }

    public static void main(String[] words) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(words[0]);
        try (Connection connection = factory.newConnection(); Channel channel = connection.createChannel()) {
            channel.queueDeclare(words[1], true, false, false, null);
            Confirms publisher = new Confirms(channel, words[1], Integer.parseInt(words[2]), Integer.parseInt(words[4]));
            Thread reporter = new Thread(publisher::report);
            reporter.setDaemon(true);
            reporter.start();
            publisher.run(words[3]);
        }
    }
}
