import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.ClientBuilder;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.Lease;
import io.etcd.jetcd.Lock;
import io.etcd.jetcd.Watch;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.options.WatchOption;
import io.etcd.jetcd.watch.WatchEvent;
import io.grpc.netty.GrpcSslContexts;
import java.io.File;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** The story of oracle/client-new/story, told with jetcd. */
public final class Story {
    private static ByteSequence bytes(String text) {
        return ByteSequence.from(text, StandardCharsets.UTF_8);
    }

    private static <T> T wait(CompletableFuture<T> answer) throws Exception {
        return answer.get(60, TimeUnit.SECONDS);
    }

    private static Client connect() throws Exception {
        String ca = System.getenv("CACERT");
        String scheme = ca == null ? "http://" : "https://";
        ClientBuilder builder = Client.builder().endpoints(scheme + System.getenv("ENDPOINT"));
        if (ca != null) {
            File cert = new File(System.getenv("CERT"));
            File key = new File(System.getenv("KEY"));
            builder.sslContext(GrpcSslContexts.forClient()
                .trustManager(new File(ca)).keyManager(cert, key).build());
        }
        String name = System.getenv("NAME");
        if (name != null) {
            builder.user(bytes(name)).password(bytes(System.getenv("PASSWORD")));
        }
        return builder.build();
    }

    private static WatchEvent next(BlockingQueue<WatchEvent> events) throws Exception {
        WatchEvent event = events.poll(60, TimeUnit.SECONDS);
        if (event == null) {
            throw new IllegalStateException("no event within a minute");
        }
        return event;
    }

    private static BlockingQueue<WatchEvent> watch(Client client, String key, boolean puts)
            throws Exception {
        BlockingQueue<WatchEvent> events = new LinkedBlockingQueue<>();
        CompletableFuture<Boolean> created = new CompletableFuture<>();
        WatchOption option = WatchOption.builder().withNoPut(!puts).withCreateNotify(true).build();
        client.getWatchClient().watch(bytes(key), option, Watch.listener(response -> {
            if (response.isCreatedNotify()) {
                created.complete(true);
            }
            events.addAll(response.getEvents());
        }));
        wait(created);
        return events;
    }

    public static void main(String[] args) throws Exception {
        try (Client client = connect()) {
            KV kv = client.getKVClient();
            wait(kv.put(bytes("story/a"), bytes("1")));
            System.out.println("got " + wait(kv.get(bytes("story/a"))).getKvs().get(0).getValue());

            BlockingQueue<WatchEvent> events = watch(client, "story/a", true);
            wait(kv.put(bytes("story/a"), bytes("2")));
            System.out.println("watched " + next(events).getKeyValue().getValue());

            BlockingQueue<WatchEvent> gone = watch(client, "story/leased", false);
            Lease leases = client.getLeaseClient();
            long lease = wait(leases.grant(2)).getID();
            PutOption leased = PutOption.builder().withLeaseId(lease).build();
            wait(kv.put(bytes("story/leased"), bytes("x"), leased));
            wait(leases.keepAliveOnce(lease));
            System.out.println("expired " + next(gone).getKeyValue().getKey());

            lock(client, leases);
        }
    }

    private static void lock(Client client, Lease leases) throws Exception {
        Lock locks = client.getLockClient();
        long first = wait(leases.grant(30)).getID();
        long second = wait(leases.grant(30)).getID();
        ByteSequence name = bytes("story/lock");
        ByteSequence held = wait(locks.lock(name, first)).getKey();
        CompletableFuture<ByteSequence> other =
            locks.lock(name, second).thenApply(response -> response.getKey());
        try {
            other.get(200, TimeUnit.MILLISECONDS);
            throw new IllegalStateException("locked twice");
        } catch (TimeoutException expected) {
            wait(locks.unlock(held));
        }
        wait(locks.unlock(wait(other)));
        System.out.println("locked in turn");
        wait(leases.revoke(first));
        wait(leases.revoke(second));
    }
}
