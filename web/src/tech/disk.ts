// What the phone keeps: actions that are queued, and the last answer of every
// question, to be shown while there is no network.
import type { Action, Shelf } from "./queue";

export type Kept = { path: string; at: number; body: unknown };

const wait = <T>(request: IDBRequest<T>): Promise<T> =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

let opened: Promise<IDBDatabase> | undefined;

function open(): Promise<IDBDatabase> {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("edgeherd-tech", 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("queue", { keyPath: "id" });
      request.result.createObjectStore("kept", { keyPath: "path" });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opened;
}

async function write(store: string, act: (s: IDBObjectStore) => void): Promise<void> {
  const t = (await open()).transaction(store, "readwrite", { durability: "strict" });
  act(t.objectStore(store));
  return new Promise((resolve, reject) => {
    t.oncomplete = () => resolve();
    t.onabort = () => reject(t.error);
  });
}

const read = async (store: string): Promise<IDBObjectStore> =>
  (await open()).transaction(store).objectStore(store);

export const shelf: Shelf = {
  all: async () => wait<Action[]>((await read("queue")).getAll()),
  put: (action) => write("queue", (s) => s.put(action)),
  remove: (id) => write("queue", (s) => s.delete(id)),
};

export const keep = (kept: Kept): Promise<void> => write("kept", (s) => s.put(kept));
export const kept = async (path: string): Promise<Kept | undefined> => wait((await read("kept")).get(path));
/** forget is for who signs out: what was seen here is not for the next one. */
export const forget = (): Promise<void> => write("kept", (s) => s.clear());
