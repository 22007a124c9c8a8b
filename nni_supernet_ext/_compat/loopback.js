// Preloaded into NNI's manager (NODE_OPTIONS=--require=...): it has no option for the address it listens on and
// takes every interface, without authentication. A listen() that names no address gets the loopback one.
// NNI_SUPERNET_BIND_ALL=1 leaves that as it is.
// NNI_SUPERNET_EXT_OWNER: the process whose end ends the manager too, so that none is left behind by a SIGKILL.
'use strict';
const net = require('net');

const ADDRESS = '127.0.0.1';
const listen = net.Server.prototype.listen;

net.Server.prototype.listen = process.env.NNI_SUPERNET_BIND_ALL === '1' ? listen : function (...given) {
    const [first, second] = given;
    if (first === undefined || typeof first === 'function') {
        given.unshift(0, ADDRESS);
    } else if (typeof first === 'number' || (typeof first === 'string' && /^\d+$/.test(first))) {
        if (typeof second !== 'string') {
            given.splice(1, 0, ADDRESS);
        }
    } else if (typeof first === 'object' && first.port !== undefined && !first.host && first.path === undefined) {
        given[0] = { ...first, host: ADDRESS };
    }
    return listen.apply(this, given);
};

const owner = Number(process.env.NNI_SUPERNET_EXT_OWNER);
if (owner && process.argv.some((argument) => argument.endsWith('main.js'))) {
    setInterval(() => {
        try {
            process.kill(owner, 0);
        } catch (error) {
            process.exit(0);
        }
    }, 1000).unref();
}
