/** The network addresses of this machine, as they are when asked for. */
import { networkInterfaces } from 'node:os';

const addresses = (): { readonly address: string; readonly internal: boolean }[] => Object.values(networkInterfaces()).flatMap((each) => each ?? []);

/** The loopback's among them. */
export const ownAddresses = (): string[] => addresses().map(({ address }) => address);

/** On a machine without a network the loopback address is the only way to a viewer. */
export const loopbackIfAlone = (): string[] => (addresses().some(({ internal }) => !internal) ? [] : ['127.0.0.1']);
