// Serves an export without Python: loads it as TensorFlow Serving does, and answers requests from files.
//
//   serve_proof EXPORT REQUESTS ANSWERS [OP_LIBRARY...]
//
// REQUESTS/<number>/<signature>/<input> holds a serialized TensorProto; ANSWERS gets the same tree with the
// signature's outputs. An OP_LIBRARY is a shared object of tensorflow-text.

#include <dlfcn.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/framework/tensor.pb.h"
#include "tensorflow/core/public/session.h"

namespace fs = std::filesystem;

[[noreturn]] void Fail(const std::string& reason) {
  std::cerr << reason << std::endl;
  std::exit(1);
}

void Check(const absl::Status& status, const std::string& what) {
  if (!status.ok()) Fail(what + ": " + status.ToString());
}

tensorflow::Tensor ReadTensor(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  tensorflow::TensorProto message;
  tensorflow::Tensor tensor;
  if (!message.ParseFromString(bytes) || !tensor.FromProto(message)) Fail("no tensor: " + path.string());
  return tensor;
}

void WriteTensor(const tensorflow::Tensor& tensor, const fs::path& path) {
  tensorflow::TensorProto message;
  tensor.AsProtoField(&message);
  std::ofstream(path, std::ios::binary) << message.SerializeAsString();
}

// Answers the request in one folder, whose name is the signature's, as TensorFlow Serving's Predict does.
void Answer(const tensorflow::SavedModelBundle& bundle, const fs::path& request, const fs::path& answer) {
  const auto found = bundle.GetSignatures().find(request.filename().string());
  if (found == bundle.GetSignatures().end()) Fail("no such signature: " + request.string());
  const tensorflow::SignatureDef& signature = found->second;

  std::vector<std::pair<std::string, tensorflow::Tensor>> feeds;
  for (const auto& [name, info] : signature.inputs()) feeds.emplace_back(info.name(), ReadTensor(request / name));
  std::vector<std::string> names, fetches;
  for (const auto& [name, info] : signature.outputs()) {
    names.push_back(name);
    fetches.push_back(info.name());
  }
  std::vector<tensorflow::Tensor> outputs;
  Check(bundle.GetSession()->Run(feeds, fetches, {}, &outputs), request.string());

  fs::create_directories(answer);
  for (size_t index = 0; index < names.size(); ++index) WriteTensor(outputs[index], answer / names[index]);
}

int main(int argc, char** argv) {
  if (argc < 4) Fail("usage: serve_proof EXPORT REQUESTS ANSWERS [OP_LIBRARY...]");
  for (int index = 4; index < argc; ++index) {
    if (dlopen(argv[index], RTLD_NOW | RTLD_GLOBAL) == nullptr) Fail(dlerror());
  }
  tensorflow::SavedModelBundle bundle;
  Check(tensorflow::LoadSavedModel({}, {}, argv[1], {"serve"}, &bundle), argv[1]);
  for (const auto& number : fs::directory_iterator(argv[2])) {
    for (const auto& request : fs::directory_iterator(number)) {
      Answer(bundle, request, argv[3] / number.path().filename() / request.path().filename());
    }
  }
  // The libraries that are mapped now, those of dlopen included.
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find("libpython") != std::string::npos) Fail("Python is loaded: " + line);
  }
}
