// Preloaded into NNI's manager (NODE_OPTIONS=--require=...): it ends an experiment whose tuner has not connected after
// ten seconds, which on a busy machine is less than a tuner needs to import. This one timer runs a minute.
'use strict';
const original = globalThis.setTimeout;
const PATIENCE = 60000;

function patient(callback, delay, ...rest) {
    const waits = delay === 10000 && String(callback).includes('Tuner did not connect');
    return original(callback, waits ? PATIENCE : delay, ...rest);
}

// With what else belongs to the function, such as its promise form.
Object.defineProperties(patient, Object.getOwnPropertyDescriptors(original));
globalThis.setTimeout = patient;
